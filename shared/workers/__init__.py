"""The fleet: which workers are alive, by leases in Redis' own time."""
