"""Large results, kept beside the run and named by it (docs/decisions/0008-large-values-by-reference.md)."""
