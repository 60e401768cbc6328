"""The sandbox host: `python -m workflow.sandbox.host`, one process a machine that owns the local sandboxes.

They outlive the workers that use them, and end with this process. It is never root while it serves: started as root, it
prepares what only root can and becomes the sandbox user. Everything is imported and read before that, for the
interpreter and the project may lie where that user cannot go.
"""

import asyncio
import contextlib
import encodings.idna  # noqa: F401 - see below
import logging
import os
import resource
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

# This, lifespan.off and encodings.idna (by resolving names) would be imported only when they cannot be read any more.
import anyio._backends._asyncio  # noqa: F401
import uvicorn.lifespan.off  # noqa: F401
import uvloop

from shared.config import Settings, load_settings
from shared.errors import AppError
from shared.log import configure_logging
from shared.tasks import cancel
from workflow.sandbox import bwrap, cgroups, wire
from workflow.sandbox.api import Api
from workflow.sandbox.base import SandboxUnavailable
from workflow.sandbox.ground import describe_limits, find_ground
from workflow.sandbox.privileges import drop_to
from workflow.sandbox.sandboxes import PROBE_FOLDER, Sandboxes
from workflow.sandbox.serving import listen, server_of, token_of

log = logging.getLogger("trunkline.sandbox")

TRY_AGAIN_SECONDS = 30  # between two tries where sandboxes could not be made


@dataclass(frozen=True, slots=True)
class Prepared:
    """What was read and made while this process still had its first user's rights."""

    workspaces: Path
    token: str
    listener: socket.socket
    archive: bytes
    groups: cgroups.Groups | None
    templates: Path


def prepare(settings: Settings, uid: int) -> Prepared:
    """Makes the folders, the token and the control groups for `uid`. Raises SandboxUnavailable."""
    workspaces = settings.workspaces.absolute()
    workspaces.mkdir(mode=0o700, parents=True, exist_ok=True)
    workspaces = workspaces.resolve()
    if os.geteuid() == 0:
        _give(workspaces, uid)
    groups = cgroups.prepare(uid)
    wire.build_adapters()
    token = token_of(settings.sandbox_token_file)
    listener = listen(settings.sandbox.host_url)
    return Prepared(workspaces, token, listener, bwrap.build_archive(), groups, _templates(settings))


def _templates(settings: Settings) -> Path:
    """The folder of templates' packages, for sandboxes to read; made now, so that it may be filled later on."""
    folder = settings.template_packages.absolute()
    with contextlib.suppress(OSError):  # find_ground says what comes of it
        if not folder.exists():
            folder.mkdir(parents=True)
            folder.chmod(0o755)
    return folder.resolve()


def _give(workspaces: Path, uid: int) -> None:
    owner = workspaces.stat().st_uid
    if owner not in (0, uid):
        raise SandboxUnavailable(
            f"{workspaces} belongs to uid {owner}, and the sandbox host, started as root, would run as uid {uid}. "
            f"Start it as uid {owner}, set sandbox.uid to {owner}, or hand the folder over: chown -R {uid} {workspaces}"
        )
    os.chown(workspaces, uid, uid)
    workspaces.chmod(0o700)


async def serve(settings: Settings, prepared: Prepared, hopeless: str | None) -> None:
    """Until SIGTERM or SIGINT. `hopeless`: why there can be no sandbox here, whatever is done beside this process."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    sandboxes = Sandboxes(settings.sandbox, prepared.workspaces, hopeless)
    if hopeless:
        log.error("%s", hopeless)
    stopping = asyncio.create_task(stop.wait())
    if not hopeless:
        await _settle(sandboxes, settings, prepared, stopping)
    server = server_of(Api(sandboxes).app(prepared.token))
    serving = asyncio.create_task(server.serve([prepared.listener]))
    while not (serving.done() or stopping.done()):
        await asyncio.wait([serving, stopping], timeout=TRY_AGAIN_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if not (sandboxes.ground or hopeless or stopping.done()):
            await _settle(sandboxes, settings, prepared, stopping)
    await sandboxes.close()
    server.should_exit = True
    await serving


async def _settle(
    sandboxes: Sandboxes, settings: Settings, prepared: Prepared, stopping: asyncio.Task[Literal[True]]
) -> None:
    """Opens the sandboxes if this machine can isolate; it may come to, when somebody installs bubblewrap."""
    folder = prepared.workspaces / PROBE_FOLDER
    trial = asyncio.create_task(
        find_ground(settings.sandbox, prepared.archive, prepared.groups, folder, prepared.templates)
    )
    await asyncio.wait([trial, stopping], return_when=asyncio.FIRST_COMPLETED)
    if not trial.done():
        return await cancel([trial])
    try:
        ground = trial.result()
    except SandboxUnavailable as error:
        if sandboxes.problem != error.detail:
            log.error("%s", error.detail)
        sandboxes.problem = error.detail
        return
    sandboxes.open(ground)
    log.info("sandboxes under %s, as uid %s; limits: %s", prepared.workspaces, os.getuid(), describe_limits(ground))


def main() -> int:
    os.umask(0o077)
    try:
        settings = load_settings()
        configure_logging(settings.log, "sandbox-host")
        run(settings)
    except AppError as error:
        print(error.detail, file=sys.stderr)  # noqa: T201 - the settings, and with them the log, may be what is wrong
        return 1
    return 0


def run(settings: Settings) -> None:
    """Raises AppError when the host cannot start at all."""
    started_as_root = os.geteuid() == 0
    uid = settings.sandbox.uid if started_as_root else os.getuid()
    prepared = prepare(settings, uid)
    hopeless = None
    if started_as_root:
        try:
            drop_to(uid, prepared.workspaces, prepared.templates)
        except SandboxUnavailable as error:
            hopeless = error.detail
    assert os.geteuid() != 0
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # four descriptors for each sandbox, and the clients'
    uvloop.run(serve(settings, prepared, hopeless))


if __name__ == "__main__":
    sys.exit(main())
