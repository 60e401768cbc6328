"""envd's plain HTTP routes: files up and down, and its health."""

import gzip
import re
from collections.abc import AsyncIterator
from urllib.parse import unquote

from aiohttp import BodyPartReader, web

from tests.support.e2b_double.box import BOX
from tests.support.e2b_double.problems import problem
from tests.support.machines.machine import Entry, MachineError, MachineGone

FILE_NAME = re.compile(r'filename="([^"]*)"')
STATUSES = {"ENOENT": 404, "ENOSPC": 507, "EDQUOT": 507, "ENOTDIR": 400, "EISDIR": 400}


class Files:
    def routes(self) -> list[web.AbstractRouteDef]:
        return [web.get("/files", _read), web.post("/files", _write), web.get("/health", _health)]


async def _health(_: web.Request) -> web.Response:
    return web.Response(status=204)


async def _read(request: web.Request) -> web.StreamResponse:
    box = request[BOX]
    path = box.machine.absolute(request.query.get("path", ""))
    try:
        entry = await box.machine.info(path)
    except MachineError as error:
        return _refused(error, path)
    if entry.directory:
        return problem(400, f"path '{path}' is a directory")
    response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
    response.content_length = entry.size
    await response.prepare(request)
    async for piece in box.machine.read(path):
        await response.write(piece)
    return response


async def _write(request: web.Request) -> web.Response:
    try:
        if request.content_type == "multipart/form-data":
            return web.json_response(await _write_parts(request))
        path = request[BOX].machine.absolute(request.query["path"])
        return web.json_response([_written(await request[BOX].machine.write(path, _body(request)))])
    except MachineError as error:
        return _refused(error, request.query.get("path", ""))
    except MachineGone:
        return problem(502, "The sandbox was not found")


async def _write_parts(request: web.Request) -> list[dict[str, str]]:
    """One file goes where the query says; of several, each part's file name is its path."""
    machine = request[BOX].machine
    written = []
    async for part in await request.multipart():
        assert isinstance(part, BodyPartReader)
        path = machine.absolute(request.query.get("path") or _file_name(part))
        written.append(_written(await machine.write(path, _pieces(part))))
    return written


def _file_name(part: BodyPartReader) -> str:
    """With its folders, which aiohttp's own `filename` takes off."""
    named = FILE_NAME.search(part.headers["Content-Disposition"])
    assert named
    return unquote(named[1])


async def _pieces(part: BodyPartReader) -> AsyncIterator[bytes]:
    while piece := await part.read_chunk():
        yield piece


async def _body(request: web.Request) -> AsyncIterator[bytes]:
    if request.headers.get("Content-Encoding") == "gzip":
        data = await request.read()
        yield gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
    else:
        async for piece in request.content.iter_any():
            yield piece


def _written(entry: Entry) -> dict[str, str]:
    return {"name": entry.name, "type": "file", "path": entry.path}


def _refused(error: MachineError, path: str) -> web.Response:
    status = STATUSES.get(error.code, 500)
    return problem(status, f"path '{path}' does not exist" if status == 404 else str(error))
