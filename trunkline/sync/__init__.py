# Made by scripts/client_sync.py from trunkline/aio: change that.
