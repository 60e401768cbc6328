"""Chaos: a real fleet under load and under faults, and a checker that knows what must hold (docs/reliability.md)."""
