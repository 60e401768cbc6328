"""The agent runtime. Knows nothing of HTTP or Celery. Read `runner.py` first."""
