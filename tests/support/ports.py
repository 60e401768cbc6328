"""Free ports on loopback.

Each process of the tests (pytest-xdist) has a share of its own, so that none takes what another has chosen and not yet
bound; they are below those that the kernel lends to outgoing connections, so that a server can be started again.
"""

import itertools
import os
import random
import socket

FIRST = 15_000
SHARE = 1_000
SHARES = 16


def _share() -> range:
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = FIRST + number % SHARES * SHARE
    return range(first, first + SHARE)


_ports = itertools.islice(itertools.cycle(_share()), random.randrange(SHARE), None)


def free_port() -> int:
    """The next one at which nobody listens: none comes again before all others have."""
    while True:
        port = next(_ports)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
