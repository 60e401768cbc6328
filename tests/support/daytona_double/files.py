"""The toolbox's files."""

import json
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from aiohttp import BodyPartReader, web

from tests.support.daytona_double.box import BOX
from tests.support.daytona_double.problems import DAEMON, FILE_CODES, refusal
from tests.support.daytona_double.toolbox import BASE
from tests.support.machines.machine import Entry, Machine, MachineError


class Files:
    def routes(self) -> list[web.AbstractRouteDef]:
        files = f"{BASE}/files"
        return [
            web.get(files, _list),
            web.delete(files, _delete),
            web.get(f"{files}/info", _info),
            web.get(f"{files}/download", _download),
            web.post(f"{files}/folder", _make_folder),
            web.post(f"{files}/move", _move),
            web.post(f"{files}/permissions", _change_mode),
            web.post(f"{files}/bulk-upload", _upload),
            web.post(f"{files}/bulk-download", _bulk_download),
        ]


async def _list(request: web.Request) -> web.Response:
    machine = request[BOX].running
    entries = await machine.list(_path(request), int(request.query.get("depth", 1)))
    return web.json_response([_dto(machine, entry) for entry in entries])


async def _info(request: web.Request) -> web.Response:
    machine = request[BOX].running
    return web.json_response(_dto(machine, await machine.info(_path(request))))


async def _delete(request: web.Request) -> web.Response:
    machine, path = request[BOX].running, _path(request)
    if (await machine.info(path)).directory and request.query.get("recursive") != "true":
        raise refusal(400, "cannot delete directory without recursive flag", "BAD_REQUEST", DAEMON)
    await machine.ask("remove", path=path)
    return web.Response(status=204)


async def _make_folder(request: web.Request) -> web.Response:
    """One that is there already is as good."""
    machine, path = request[BOX].running, _path(request)
    try:
        await machine.ask("make_folder", path=path, mode=int(request.query["mode"], 8))
    except MachineError as error:
        if error.code != "EEXIST":
            raise
    return web.Response(status=201)


async def _move(request: web.Request) -> web.Response:
    machine = request[BOX].running
    source, target = (machine.absolute(request.query[name]) for name in ("source", "destination"))
    await machine.ask("move", source=source, target=target)
    return web.Response(status=200)


async def _change_mode(request: web.Request) -> web.Response:
    await request[BOX].running.ask("change_mode", path=_path(request), mode=int(request.query["mode"], 8))
    return web.Response(status=200)


async def _upload(request: web.Request) -> web.Response:
    """The part `files[i].path` says where the bytes of `files[i].file` go."""
    machine = request[BOX].running
    target = ""
    async for part in await request.multipart():
        assert isinstance(part, BodyPartReader)
        if (part.name or "").endswith(".path"):
            target = machine.absolute(await part.text())
        else:
            await machine.write(target, _pieces(part))
    return web.Response(status=200)


async def _pieces(part: BodyPartReader) -> AsyncIterator[bytes]:
    while piece := await part.read_chunk():
        yield piece


async def _download(request: web.Request) -> web.StreamResponse:
    machine, path = request[BOX].running, _path(request)
    await machine.info(path)
    response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
    await response.prepare(request)
    async for piece in machine.read(path):
        await response.write(piece)
    return response


async def _bulk_download(request: web.Request) -> web.StreamResponse:
    """A part `file` or `error` for each path."""
    machine = request[BOX].running
    boundary = secrets.token_hex(16)
    response = web.StreamResponse(headers={"Content-Type": f"multipart/form-data; boundary={boundary}"})
    await response.prepare(request)
    for path in (await request.json())["paths"]:
        async for piece in _part(machine, path, boundary):
            await response.write(piece)
    await response.write(f"--{boundary}--\r\n".encode())
    return response


async def _part(machine: Machine, path: str, boundary: str) -> AsyncIterator[bytes]:
    resolved = machine.absolute(path)
    try:
        if (await machine.info(resolved)).directory:
            raise MachineError("EISDIR", "path points to a directory")
    except MachineError as error:
        yield _head(boundary, "error", path, "application/json")
        yield json.dumps(_problem(error)).encode()
    else:
        yield _head(boundary, "file", path, "application/octet-stream")
        async for piece in machine.read(resolved):
            yield piece
    yield b"\r\n"


def _head(boundary: str, name: str, path: str, kind: str) -> bytes:
    plain = path.encode("ascii", "replace").decode()
    where = f'form-data; name="{name}"; filename="{plain}"; filename*=UTF-8\'\'{quote(path)}'
    return f"--{boundary}\r\nContent-Disposition: {where}\r\nContent-Type: {kind}\r\n\r\n".encode()


def _problem(error: MachineError) -> dict[str, Any]:
    status, code = FILE_CODES.get(error.code, (400, "INVALID_FILE_PATH"))
    return {"statusCode": status, "message": str(error), "code": code, "source": DAEMON}


def _path(request: web.Request) -> str:
    return request[BOX].running.absolute(request.query.get("path", ""))


def _dto(machine: Machine, entry: Entry) -> dict[str, Any]:
    modified = datetime.fromtimestamp(entry.mtime, UTC)
    return {
        "name": entry.name,
        "path": entry.path,
        "isDir": entry.directory,
        "size": entry.size,
        "mode": entry.permissions,
        "permissions": f"{entry.mode:04o}",
        "owner": machine.user,
        "group": machine.user,
        "modTime": f"{modified:%Y-%m-%d %H:%M:%S} +0000 UTC",
        "modifiedAt": modified.isoformat(),
    }
