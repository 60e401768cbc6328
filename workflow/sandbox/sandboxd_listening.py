"""The TCP ports on which somebody waits for connections.

Runs inside the sandbox: standard library only, nothing newer than Python 3.9. Also a part of a program of its own
(workflow/tool/expose_port.py), so that it imports nothing of ours.
"""

import contextlib

LISTENS = "0A"
MAX_TABLE = 4 * 1024 * 1024  # bytes of /proc/net/tcp that are looked at


def listening() -> "list[int]":
    ports = set()
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError), open(f"/proc/self/net/{name}") as table:
            for line in table.readlines(MAX_TABLE)[1:]:
                _, local, _, state = line.split(maxsplit=4)[:4]
                if state == LISTENS:
                    ports.add(int(local.rpartition(":")[2], 16))
    return sorted(ports)
