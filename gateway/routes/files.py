"""The files of a thread's sandbox, down and up. What comes from a sandbox is never shown as a page of ours."""

import mimetypes
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Header, Query
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from gateway.auth import Principal
from gateway.deps import Caller, Runner, Services, WithServices
from gateway.openapi import errors
from gateway.routes.answers import Timestamp
from shared.errors import AppError, ErrorCode
from shared.types import JSON

router = APIRouter(prefix="/agent", tags=["files"])

WORKSPACE = "/workspace"
MAX_DEPTH = 10
MAX_ENTRIES = 2000

_BYTES = {"schema": {"type": "string", "format": "binary"}}
_TAG: JSON = {"description": "Its SHA-256, in quotes, unless it has more than 64 MiB.", "schema": {"type": "string"}}
_ANY: JSON = {"*/*": {}}
"""A file's name says what is in it."""
_FILE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file, as an attachment; or, with `archive`, the folder.",
        "headers": {"ETag": _TAG},
        "content": _ANY,
    },
    206: {"description": "The part of it that `Range` asked for.", "content": _ANY},
    416: {"description": "The file has no such range."},
}
_BODY: JSON = {"requestBody": {"required": True, "content": {"application/octet-stream": _BYTES}}}
_BEYOND = 10**15
"""No file has that many bytes: what starts there is in none."""
_RANGE = re.compile(r"bytes=(?:(\d{1,15})-(\d{1,15})?|-(\d{1,15}))")

Archive = Annotated[
    Literal["tar.gz"] | None, Query(description="A whole folder as one archive, or an archive to be unpacked into it.")
]
Depth = Annotated[int, Query(ge=1, le=MAX_DEPTH, description="How many levels of folders to list.")]


class FileEntry(BaseModel):
    path: str = Field(description="Relative to the listed folder.", examples=["src/app.py"])
    kind: Literal["file", "directory", "symlink", "other"]
    size: int
    modified_at: Timestamp
    children: int | None = Field(description="How many items a folder holds that the listing did not go into.")


class FileListing(BaseModel):
    path: str = Field(examples=["/workspace"])
    entries: list[FileEntry] = Field(description="Folders before what is in them, by name.")
    truncated: bool = Field(description=f"Whether there are more than {MAX_ENTRIES}.")


class FileWritten(BaseModel):
    path: str = Field(examples=["/workspace/data/input.csv"])
    size: int | None = Field(default=None, description="Of the file.")
    sha256: str | None = Field(default=None, description="Of the file; what `If-Match` takes.")
    count: int | None = Field(default=None, description="How many entries an archive had.")


@router.get(
    "/{thread_id}/files",
    operation_id="listFiles",
    summary="The files of a thread's sandbox",
    responses=errors(400, 404),
)
async def list_files(
    thread_id: str,
    services: WithServices,
    caller: Caller,
    path: Annotated[
        str, Query(description="The folder to list, relative to the workspace or absolute.", examples=["src"])
    ] = "",
    depth: Depth = 1,
) -> FileListing:
    """Of a sandbox that does not exist yet, none."""
    sandbox = await services.sandbox_of(caller, thread_id)
    folder = _inside(path)
    if not await services.sandboxes.exists(sandbox):
        return FileListing(path=folder, entries=[], truncated=False)
    asked = {"path": folder, "depth": depth, "limit": MAX_ENTRIES}
    told = await services.sandboxes.ask(sandbox, "list", asked)
    return FileListing(
        path=told["path"], entries=[_entry(each) for each in told["entries"]], truncated=told["truncated"]
    )


@router.get(
    "/{thread_id}/files/{path:path}",
    operation_id="downloadFile",
    summary="A file, or a folder as an archive",
    response_class=Response,
    responses={**_FILE, **errors(400, 404)},
)
async def download_file(
    thread_id: str,
    path: str,
    *,
    services: WithServices,
    caller: Caller,
    archive: Archive = None,
    asked_range: Annotated[str | None, Header(alias="Range", examples=["bytes=0-1023"])] = None,
) -> Response:
    sandbox = await services.sandbox_of(caller, thread_id)
    target = _inside(path)
    if not await services.sandboxes.exists(sandbox):
        raise AppError(ErrorCode.NOT_FOUND, f"{target} does not exist: the thread has no sandbox yet.")
    if archive:
        return await _outgoing(services, sandbox, {"op": "pack", "path": target})
    start, end = _parsed(asked_range)
    if start is not None and start < 0:
        told = await services.sandboxes.ask(sandbox, "stat", {"path": target})
        start = max(0, told["size"] + start)
    return await _outgoing(services, sandbox, {"op": "send", "path": target}, start, end)


@router.put(
    "/{thread_id}/files",
    operation_id="uploadArchive",
    summary="Unpack an archive into the workspace",
    responses=errors(400, 404, 413),
    openapi_extra=_BODY,
)
async def upload_archive(
    thread_id: str, request: Request, services: WithServices, caller: Runner, archive: Archive = "tar.gz"
) -> FileWritten:
    """Each entry replaces what was there under its name; what else is there stays."""
    return await _incoming(services, caller, thread_id, {"op": "unpack", "path": WORKSPACE}, request)


@router.put(
    "/{thread_id}/files/{path:path}",
    operation_id="uploadFile",
    summary="Write a file, or unpack an archive into a folder",
    responses=errors(400, 404, 412, 413),
    openapi_extra=_BODY,
)
async def upload_file(
    thread_id: str,
    path: str,
    *,
    request: Request,
    services: WithServices,
    caller: Runner,
    archive: Archive = None,
    if_match: Annotated[
        str | None,
        Header(description="The sha256 that the file should have, or `*` where it should be there; 412 otherwise."),
    ] = None,
) -> FileWritten:
    """The file is there once all of it has come, or not at all. Its folders are made, and the sandbox where need be."""
    expect = if_match.strip().removeprefix("W/").strip('"') if if_match else None
    expect = "present" if expect == "*" else expect
    order: JSON = {"op": "unpack"} if archive else {"op": "take", "expect": expect}
    return await _incoming(services, caller, thread_id, {**order, "path": _inside(path)}, request)


def _inside(path: str) -> str:
    """Of a path relative to the workspace, or absolute as answers give it. Raises AppError INVALID_REQUEST.

    Links are followed inside the sandbox, where they lead nowhere else.
    """
    path = f"{path}/".removeprefix(f"{WORKSPACE}/").removesuffix("/")
    if path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise AppError(ErrorCode.INVALID_REQUEST, f"The path should be relative to {WORKSPACE}, and stay below it.")
    return f"{WORKSPACE}/{path}".rstrip("/")


def _entry(told: JSON) -> FileEntry:
    modified_at = datetime.fromtimestamp(told["mtime_ns"] // 10**9, UTC)
    fields = {name: told[name] for name in ("path", "kind", "size", "children")}
    return FileEntry(**fields, modified_at=modified_at)


def _parsed(asked: str | None) -> tuple[int | None, int | None]:
    """First and last byte; a negative first one counts from the end. What is invalid is no range (RFC 9110, 14.2)."""
    match = _RANGE.fullmatch(asked or "")
    if match is None:
        return None, None
    first, last, suffix = match.groups()
    if suffix:
        return -int(suffix) or _BEYOND, None
    if last and int(last) < int(first):
        return None, None
    return int(first), int(last) if last else None


async def _outgoing(
    services: Services, sandbox: str, request: JSON, start: int | None = None, end: int | None = None
) -> Response:
    if start is not None:
        request |= {"offset": start} | ({"length": end - start + 1} if end is not None else {})
    async with AsyncExitStack() as stack:
        head, pieces = await stack.enter_async_context(services.sandboxes.outgoing(sandbox, request))
        headers = _archive_headers(request["path"]) if request["op"] == "pack" else _file_headers(head)
        status = 200
        if start is not None:
            status = _set_range(headers, head["info"]["size"], start, end)
            if status == 416:
                return Response(status_code=416, headers={"Content-Range": headers["Content-Range"]})
        return StreamingResponse(_held(pieces, stack.pop_all()), status, headers)


def _set_range(headers: dict[str, str], size: int, start: int, end: int | None) -> int:
    last = min(size - 1, size if end is None else end)
    if start > last:
        headers["Content-Range"] = f"bytes */{size}"
        return 416
    headers["Content-Range"] = f"bytes {start}-{last}/{size}"
    headers["Content-Length"] = str(last - start + 1)
    return 206


def _file_headers(head: JSON) -> dict[str, str]:
    name = head["info"]["path"].rpartition("/")[2]
    headers = {
        "Content-Type": mimetypes.guess_type(name, strict=False)[0] or "application/octet-stream",
        "Content-Length": str(head["info"]["size"]),
        "Accept-Ranges": "bytes",
        **_attachment(name),
    }
    return headers | ({"ETag": f'"{head["sha256"]}"'} if head["sha256"] else {})


def _archive_headers(path: str) -> dict[str, str]:
    return {"Content-Type": "application/gzip", **_attachment(f"{path.rpartition('/')[2]}.tar.gz")}


def _attachment(name: str) -> dict[str, str]:
    return {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}"}


async def _held(pieces: AsyncIterator[bytes], held: AsyncExitStack) -> AsyncIterator[bytes]:
    async with held:
        async for piece in pieces:
            yield piece


async def _incoming(
    services: Services, caller: Principal, thread_id: str, order: JSON, request: Request
) -> FileWritten:
    sandbox = await services.sandbox_of(caller, thread_id)
    told = await services.sandboxes.incoming(sandbox, order, request.stream())
    size = told["info"]["size"] if "info" in told else None
    return FileWritten(path=order["path"], size=size, sha256=told.get("sha256"), count=told.get("count"))
