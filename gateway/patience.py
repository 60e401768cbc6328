PATIENCE_SECONDS = 2.0
"""How long a request waits for a Redis that is away, before 503: a restart passes unnoticed."""
