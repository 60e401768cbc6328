"""Large results, kept beside the run and named by it (docs/decisions/0010-large-results-by-reference.md)."""
