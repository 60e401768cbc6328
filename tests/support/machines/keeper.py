"""Owns the machines of one double: `python -m tests.support.machines.keeper FD FOLDER UID HOME USER [PACKAGES]`.

FD is a SEQPACKET socket: each request {"op": "start" | "stop", "name": ...} gets one answer, {} or {"error": ...}; that
of a start brings the descriptor of a connection to inner.py in the new machine. It becomes UID where it was started as
root, because bubblewrap run by root is no isolation, and ends, with its machines, when FD is closed. Machines have
PACKAGES at /opt/templates.
"""

import asyncio
import json
import os
import socket
import sys
from pathlib import Path

from shared.config import SandboxSettings
from shared.errors import AppError
from workflow.sandbox import bwrap
from workflow.sandbox.base import WORKSPACE
from workflow.sandbox.ground import find_ground
from workflow.sandbox.inside import Ground, Inside, start
from workflow.sandbox.privileges import drop_to

CONTROL = ".control"  # in the workspace, and only while a machine starts
SOURCE = Path(__file__).with_name("inner.py")
REQUEST_BYTES = 64 * 1024


class Keeper:
    def __init__(self, requests: socket.socket, folder: Path, ground: Ground) -> None:
        self._requests = requests
        self._folder = folder
        self._ground = ground
        self._inner = SOURCE.read_text()
        self._machines: dict[str, Inside] = {}
        self._operations = {"start": self._start, "stop": self._stop}

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        while request := await loop.sock_recv(self._requests, REQUEST_BYTES):
            asked = json.loads(request)
            try:
                control = (
                    await self._start(asked["name"]) if asked["op"] == "start" else await self._stop(asked["name"])
                )
            except AppError as error:
                self._answer({"error": error.detail})
            else:
                self._answer({}, control)
        for name in list(self._machines):
            await self._stop(name)

    def _answer(self, answer: dict[str, str], control: socket.socket | None = None) -> None:
        descriptors = [control.fileno()] if control else []
        socket.send_fds(self._requests, [json.dumps(answer).encode()], descriptors)
        if control:
            control.close()

    async def _start(self, name: str) -> socket.socket | None:
        workspace = self._folder / name
        workspace.mkdir(mode=0o700)
        path = workspace / CONTROL
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen(1)
            listener.setblocking(False)
            self._machines[name] = inside = await start(self._ground, workspace, name)
            command = f'exec {self._ground.profile.python} -I -c "$INNER" {WORKSPACE}/{CONTROL}'
            message = {"op": "run", "command": command, "cwd": "", "env": {"INNER": self._inner}}
            _, ended = inside.link.start(message, _complain)
            ended.add_done_callback(asyncio.Future.exception)
            control, _ = await asyncio.get_running_loop().sock_accept(listener)
        path.unlink()
        return control

    async def _stop(self, name: str) -> socket.socket | None:
        await self._machines.pop(name).stop()
        return None


def _complain(said: bytes) -> None:
    sys.stderr.buffer.write(said)


async def main(descriptor: int, folder: Path, uid: int, login: tuple[str, str], packages: Path | None) -> None:
    home, user = login
    bwrap.TMPFS[home] = 1 / 4
    bwrap.ETC_DATA["passwd"] = f"root:x:0:0::/root:/bin/sh\n{user}:x:1000:1000::{home}:/bin/bash\n".encode()
    bwrap.ETC_DATA["group"] = f"root:x:0:\n{user}:x:1000:\n".encode()
    archive = bwrap.build_archive()
    if os.geteuid() == 0:
        os.chown(folder, uid, uid)
        drop_to(uid, folder, packages)
    requests = socket.socket(fileno=descriptor)
    requests.setblocking(False)
    try:
        ground = await find_ground(SandboxSettings(), archive, None, folder / ".probe", packages)
    except AppError as error:
        requests.send(json.dumps({"error": error.detail}).encode())
        return
    requests.send(b"{}")
    await Keeper(requests, folder, ground).serve()


if __name__ == "__main__":
    os.umask(0o077)
    fd, place, uid, home, user, *rest = sys.argv[1:]
    asyncio.run(main(int(fd), Path(place), int(uid), (home, user), Path(rest[0]) if rest else None))
