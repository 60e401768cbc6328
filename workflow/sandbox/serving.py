"""What every sandbox host does to be reached: its socket, its token, its server."""

import contextlib
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from workflow.sandbox.base import SandboxUnavailable

KEEP_ALIVE_SECONDS = 3600  # longer than any client keeps a connection, so that none is closed under its hands
SHUTDOWN_SECONDS = 3


def listen(url: str) -> socket.socket:
    address = urlsplit(url)
    try:
        return socket.create_server((address.hostname or "127.0.0.1", address.port or 80), backlog=1024)
    except OSError as error:
        raise SandboxUnavailable(
            f"The sandbox host cannot listen on {url}: {error.strerror}. Set sandbox.host_url to a free port."
        ) from error


def token_of(path: Path) -> str:
    """The token that clients show. Whoever needs it first makes it."""
    with contextlib.suppress(FileExistsError):
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(secrets.token_urlsafe(32))
    token = path.read_text().strip()
    if not token:
        raise SandboxUnavailable(f"{path} is empty: delete it, and the sandbox host makes a new one.")
    return token


class Server(uvicorn.Server):
    """Leaves signals to us: the sandboxes must end first, so that those who wait for a command hear how it ended."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def server_of(app: ASGIApp) -> Server:
    config = uvicorn.Config(
        app,
        http=HttpToolsProtocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    return Server(config)
