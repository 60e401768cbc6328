"""Ports on the loopback interface."""

import random
import socket

from scripts.stack.errors import StackError

# Below the range from which Linux takes the local end of outgoing connections: a client that keeps knocking at a closed
# port of that range can end up connected to itself, and then the server cannot have its port back.
PRIVATE_PORTS = range(20_000, 30_000)


def is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    for port in random.sample(PRIVATE_PORTS, 200):
        if is_free("127.0.0.1", port):
            return port
    raise StackError("No free port between 20000 and 30000 was found on 127.0.0.1.")


def require_free(host: str, port: int) -> None:
    """Raises StackError with the cure."""
    if not is_free(host, port):
        raise StackError(
            f"Port {port} on {host} is in use by another program. Choose another one: --port {port + 1} "
            f"(who has it: ss -ltnp 'sport = :{port}')."
        )
