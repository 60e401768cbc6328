"""Machines as containers of a Docker engine. Needs the extra `docker`, and an image like deploy/Dockerfile.sandbox.

A container can do nothing to its host but use up what it is given: no network unless the settings say otherwise, no
capability, a read-only root. The workspace and the home are volumes of its own, so a container that stopped keeps them.
Its main process ends, and with it the container, once nobody has said for a while that it is in use.
"""

import asyncio
import hashlib
import io
import posixpath
import socket
import ssl
import struct
import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound, NotFound

from shared.config import DockerSettings
from shared.install import Install
from workflow.sandbox import machine, sandboxd_relay
from workflow.sandbox.base import WORKSPACE, Network, SandboxRefused, SandboxUnavailable
from workflow.sandbox.machine import (
    Allowance,
    Found,
    MachineError,
    MachineGone,
    MachineStopped,
    MachineUnreachable,
    Ran,
    labels_of,
    labels_to_find,
)
from workflow.sandbox.ways import PIECE, Stream, Way

HOME = "/home/user"
UID = 1000
LEASE = f"{HOME}/.lease"
LATE_SECONDS = 5.0
REQUEST_SECONDS = 60
TRANSFER_SECONDS = 120.0
TAR_BYTES = 2 * tarfile.RECORDSIZE  # around a file: its header, and what fills the last record
TMPFS_SHARE = 4  # of the memory, for /tmp
CALLS_AT_ONCE = 128
FRAME = struct.Struct(">B3xI")
STDOUT = 1
CONFLICT = 409  # the name is taken; or the container does not run
_MAIN = "touch {lease}; while [ $(( $(date +%s) - $(stat -c %Y {lease} || echo 0) )) -lt {idle} ]; do sleep 5; done"

T = TypeVar("T")


def container_options(settings: DockerSettings, network: Network, name: str, labels: dict[str, str]) -> dict[str, Any]:
    """What a container may do, as the SDK takes it."""
    volumes = {f"{name}-workspace": WORKSPACE, f"{name}-home": HOME}
    return {
        "image": settings.image,
        "command": ["sh", "-c", _MAIN.format(lease=LEASE, idle=settings.idle_seconds)],
        "name": name,
        "labels": labels,
        "detach": True,
        "init": True,
        "user": f"{UID}:{UID}",
        "working_dir": WORKSPACE,
        "environment": {"HOME": HOME, "USER": "user", "LANG": "C.UTF-8", "TMPDIR": "/tmp"},  # noqa: S108
        "network_mode": settings.network if network.policy == "open" else "none",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "pids_limit": settings.processes,
        "mem_limit": settings.memory_bytes,
        "memswap_limit": settings.memory_bytes,
        "nano_cpus": int(settings.cpus * 1e9),
        "tmpfs": {"/tmp": f"rw,nosuid,nodev,size={settings.memory_bytes // TMPFS_SHARE},mode=1777"},  # noqa: S108
        "volumes": {volume: {"bind": path, "mode": "rw"} for volume, path in volumes.items()},
        "ipc_mode": "private",
        "log_config": {"Type": "none"},
    }


class Engine:
    """Its SDK blocks, some calls for as long as a command goes on: they have threads of their own."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(CALLS_AT_ONCE, thread_name_prefix="docker")

    async def call(self, seconds: float, call: Callable[[], T]) -> T:
        """One that is late goes on, and nobody hears of it. Raises as `translated`."""
        with translated():
            async with asyncio.timeout(seconds):
                return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class DockerMachine:
    def __init__(self, engine: Engine, container: Any) -> None:
        self._engine = engine
        self._container = container
        self.machine_id = str(container.id)

    async def run(self, script: str, seconds: float) -> Ran:
        """A script that is late goes on in the container; the next one asks for its outcome."""
        command = ["timeout", "-k", "1", str(seconds), "bash", "-c", script]
        return await self._engine.call(seconds + LATE_SECONDS, lambda: self._ran(command))

    def _ran(self, command: list[str]) -> Ran:
        """As the SDK's exec_run, which takes whatever comes."""
        api, allowance = self._container.client.api, Allowance(machine.MAX_PRINTED)
        begun = api.exec_create(self._container.id, command)["Id"]
        out, err = bytearray(), bytearray()
        with closing(api.exec_start(begun, stream=True, demux=True)) as pieces:
            for pair in pieces:
                for kept, piece in zip((out, err), pair, strict=True):
                    allowance.take(piece or b"")
                    kept.extend(piece or b"")
        code = int(api.exec_inspect(begun)["ExitCode"])
        return Ran(code, out.decode(errors="replace"), err.decode(errors="replace"))

    async def put(self, path: str, content: bytes) -> None:
        folder, name = posixpath.split(path)
        await self._engine.call(TRANSFER_SECONDS, lambda: self._container.put_archive(folder, packed(name, content)))

    async def get(self, path: str, limit: int) -> bytes:
        def fetch() -> bytes:
            pieces, _ = self._container.get_archive(path)
            return unpacked(b"".join(Allowance(limit + TAR_BYTES).of(pieces)))

        return await self._engine.call(TRANSFER_SECONDS, fetch)

    async def expose(self, port: int, seconds: int) -> None:
        return None

    async def way(self, port: int) -> Way:
        """By a program beside the server: a container's own address leads nowhere where it has no network."""
        command = ["python3", "-I", "-c", Path(sandboxd_relay.__file__).read_text("utf-8"), str(port)]

        async def attach() -> Stream:
            try:
                return Attached(await self._engine.call(REQUEST_SECONDS, lambda: self._attached(command)))
            except MachineError as error:
                raise ConnectionError(str(error)) from error

        return Way(attach)

    def _attached(self, command: list[str]) -> socket.socket:
        """To its standard input and output. Raises SandboxRefused."""
        api = self._container.client.api
        begun = api.exec_create(self._container.id, command, stdin=True)["Id"]
        connection = api.exec_start(begun, socket=True)
        plain = getattr(connection, "_sock", connection)
        if isinstance(plain, ssl.SSLSocket):
            raise SandboxRefused("Pages of Docker's sandboxes are shown only where the engine is reached without TLS.")
        copy: socket.socket = plain.dup()
        return copy

    async def extend(self) -> None:
        await self.run(f"touch {LEASE}", LATE_SECONDS)


class Attached:
    """A Stream over the engine's connection to a program: bytes in, frames of 8 bytes and a piece out."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._loop = asyncio.get_running_loop()
        self._came = bytearray()
        self._frame = 0  # bytes that are still to come of the frame that has begun
        self._shown = False  # whether it is one of standard output

    async def read(self) -> bytes:
        while True:
            if not self._frame and len(self._came) >= FRAME.size:
                stream, self._frame = FRAME.unpack(self._came[: FRAME.size])
                self._shown = stream == STDOUT
                del self._came[: FRAME.size]
            piece = bytes(self._came[: self._frame])
            del self._came[: len(piece)]
            self._frame -= len(piece)
            if piece and self._shown:
                return piece
            if not piece and not await self._receive():
                return b""

    async def _receive(self) -> bool:
        try:
            piece = await self._loop.sock_recv(self._socket, PIECE)
        except OSError:
            return False
        self._came += piece
        return bool(piece)

    async def write(self, data: bytes) -> None:
        await self._loop.sock_sendall(self._socket, data)

    def end(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._socket.close()


class DockerCloud:
    name = "docker"
    image_hint = "Choose another image by docker.image; deploy/Dockerfile.sandbox makes one that will do."

    def __init__(self, settings: DockerSettings, network: Network, install: Install) -> None:
        self._settings = settings
        self._network = network
        self._install = install
        self._known: Any = None
        self._engine = Engine()
        self.extend_seconds = settings.idle_seconds / 3

    async def create(self, thread_id: str, instead_of: str | None) -> DockerMachine:
        """A container's name is given once: who comes second gets the one that is there."""
        labels = labels_of(self._install, thread_id)
        occasion = hashlib.sha256(str(instead_of).encode()).hexdigest()[:8]
        name = f"trunkline-{self._install.name}-{thread_id}-{occasion}"
        options = container_options(self._settings, self._network, name, labels)

        def make() -> Any:
            client = self._client()
            try:
                return client.containers.run(**options)
            except APIError as error:
                if error.status_code != CONFLICT:
                    raise
                return client.containers.get(name)

        try:
            return DockerMachine(self._engine, await self._engine.call(REQUEST_SECONDS, make))
        except ImageNotFoundHere as error:
            raise SandboxUnavailable(
                f"Docker has no image {self._settings.image}: build it (`docker build -t {self._settings.image} -f "
                "deploy/Dockerfile.sandbox deploy`) or name another by docker.image."
            ) from error

    async def connect(self, machine_id: str) -> DockerMachine:
        def start() -> Any:
            container = self._client().containers.get(machine_id)
            if container.status == "paused":
                container.unpause()
            elif container.status != "running":
                container.start()
            return container

        return DockerMachine(self._engine, await self._engine.call(REQUEST_SECONDS, start))

    async def find(self, thread_id: str | None = None) -> Sequence[Found]:
        filters = {"label": [f"{name}={value}" for name, value in labels_to_find(self._install, thread_id).items()]}
        found = await self._engine.call(
            REQUEST_SECONDS, lambda: self._client().containers.list(all=True, filters=filters)
        )
        return [Found.labelled(str(each.id), each.labels, _seconds(each.attrs["Created"])) for each in found]

    async def remove(self, machine_id: str) -> None:
        def remove() -> None:
            client = self._client()
            container = client.containers.get(machine_id)
            container.remove(force=True)
            for volume in ("workspace", "home"):
                with suppress(NotFound):
                    client.volumes.get(f"{container.name}-{volume}").remove(force=True)

        with suppress(MachineGone):
            await self._engine.call(REQUEST_SECONDS, remove)

    async def close(self) -> None:
        self._engine.close()
        if self._known:
            self._known.close()

    def _client(self) -> Any:
        if self._known is None:
            url = self._settings.url
            self._known = docker.DockerClient(base_url=url) if url else docker.from_env()
        return self._known


class ImageNotFoundHere(Exception):
    """The engine has no such image."""


@contextmanager
def translated() -> Iterator[None]:
    """What the SDK raises, as the protocol has it."""
    try:
        yield
    except ImageNotFound as error:
        raise ImageNotFoundHere(str(error)) from error
    except NotFound as error:
        raise MachineGone(str(error)) from error
    except APIError as error:
        stopped = error.status_code == CONFLICT
        raise (MachineStopped if stopped else MachineUnreachable)(f"Docker: {error}") from error
    except (DockerException, requests.RequestException, TimeoutError, OSError) as error:
        raise MachineUnreachable(f"{type(error).__name__}: {error}") from error


def packed(name: str, content: bytes) -> bytes:
    """One file of the sandbox's user, as the engine takes it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode, entry.uid, entry.gid = len(content), 0o600, UID, UID
        archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def unpacked(archive: bytes) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        file = files.extractfile(files.next() or tarfile.TarInfo())
        return file.read() if file else b""


def _seconds(moment: str) -> float:
    """Docker tells nanoseconds, which Python does not take."""
    return datetime.fromisoformat(f"{moment[:19]}+00:00").timestamp()
