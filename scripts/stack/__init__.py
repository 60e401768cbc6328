"""The embedded stack: Valkey, sandbox host, gateway and workers on one machine, under one supervisor."""
