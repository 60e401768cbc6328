"""The gateway's side of the sandboxes: their files and ports, fetched from the sandbox host that owns them."""
