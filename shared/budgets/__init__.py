"""Budgets: what a run, a thread, a key and a workspace may still spend on model calls. In Redis, by Redis' time."""
