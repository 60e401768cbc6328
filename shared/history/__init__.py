"""Threads wherever they are: live ones in Redis, the rest in SQL."""
