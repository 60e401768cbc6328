"""Durable steps: what finished is never done again."""
