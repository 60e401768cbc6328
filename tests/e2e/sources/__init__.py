"""One script for each design whose clients find their words and paths here: docs/from-the-source-designs.md."""
