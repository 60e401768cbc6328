"""How many runs of one workspace may go on at the same time."""
