"""The HTTP side of the sandbox host: a token is asked for, the rest is a table of operations (wire.py)."""

import hmac
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from workflow.sandbox import wire
from workflow.sandbox.base import (
    MAX_WRITE_BYTES,
    FileWrite,
    SandboxError,
    SandboxFenced,
    SandboxLost,
    SandboxRefused,
    SandboxUnavailable,
)
from workflow.sandbox.ground import describe_limits
from workflow.sandbox.hosted import HostedSandbox
from workflow.sandbox.record import Record
from workflow.sandbox.sandboxes import Sandboxes
from workflow.sandbox.transfers import Transfers
from workflow.sandbox.tunnel import Tunnel

log = logging.getLogger("trunkline.sandbox")

MAX_BODY_BYTES = MAX_WRITE_BYTES + 4 * 1024**2  # the plan of the files and the note come on top
STATUSES: tuple[tuple[type[SandboxError], int], ...] = (
    (SandboxFenced, 409),
    (SandboxLost, 410),
    (SandboxUnavailable, 503),
    (SandboxError, 422),
)

Operation = Callable[[HostedSandbox, Any], Awaitable[Any]]


async def _tasks(sandbox: HostedSandbox, _: wire.Nothing) -> Any:
    return sandbox.commands.tasks()


async def _task_output(sandbox: HostedSandbox, request: wire.ReadOutput) -> Any:
    return await sandbox.task_output(request.task_id, request.offset, request.block_seconds)


async def _kill_task(sandbox: HostedSandbox, request: wire.KillTask) -> Any:
    return await sandbox.commands.kill_task(request.task_id, request.key, request.epoch)


async def _cancel(sandbox: HostedSandbox, request: wire.Cancel) -> None:
    await sandbox.commands.cancel(request.run_id, request.epoch)


async def _save_output(sandbox: HostedSandbox, request: wire.SaveOutput) -> None:
    await sandbox.save_output(request.output_of, request.path, request.key, request.epoch)


async def _stat(sandbox: HostedSandbox, request: wire.Stat) -> Any:
    return await sandbox.stat(request.path)


async def _hashes(sandbox: HostedSandbox, request: wire.Hashes) -> Any:
    return await sandbox.hashes(request.paths)


async def _list(sandbox: HostedSandbox, request: wire.List) -> Any:
    return await sandbox.list(request.path, request.depth, request.ignore, request.limit)


async def _ports(sandbox: HostedSandbox, _: wire.Nothing) -> Any:
    return await sandbox.ports()


async def _recall(sandbox: HostedSandbox, request: wire.Recall) -> Any:
    return wire.Note(await sandbox.recall(request.key, request.epoch))


OPERATIONS: dict[str, tuple[type[Any], Operation]] = {
    "tasks": (wire.Nothing, _tasks),
    "task_output": (wire.ReadOutput, _task_output),
    "kill_task": (wire.KillTask, _kill_task),
    "cancel": (wire.Cancel, _cancel),
    "save_output": (wire.SaveOutput, _save_output),
    "stat": (wire.Stat, _stat),
    "hashes": (wire.Hashes, _hashes),
    "list": (wire.List, _list),
    "ports": (wire.Nothing, _ports),
    "recall": (wire.Recall, _recall),
}


@dataclass(frozen=True, slots=True)
class Api:
    """The routes."""

    sandboxes: Sandboxes

    def app(self, token: str) -> ASGIApp:
        transfers = Transfers(self.sandboxes)
        routes = [
            Route("/health", self.health),
            Route("/unused", self.unused, methods=["POST"]),
            Route("/sandboxes/{thread_id}/remove", self.remove, methods=["POST"]),
            Route("/sandboxes/{thread_id}/acquire", self.acquire, methods=["POST"]),
            Route("/sandboxes/{thread_id}/exec", self.exec, methods=["POST"]),
            Route("/sandboxes/{thread_id}/attach", self.attach, methods=["POST"]),
            Route("/sandboxes/{thread_id}/read", self.read, methods=["POST"]),
            Route("/sandboxes/{thread_id}/write", self.write, methods=["POST"]),
            Route("/sandboxes/{thread_id}", self.look),
            Route("/sandboxes/{thread_id}/outgoing", transfers.outgoing, methods=["POST"]),
            Route("/sandboxes/{thread_id}/incoming", transfers.incoming, methods=["POST"]),
            Route("/sandboxes/{thread_id}/ports/{port:int}", Tunnel(self.sandboxes), methods=["POST"]),
            Route("/sandboxes/{thread_id}/{operation}", self.operate, methods=["POST"]),
        ]
        handlers = {SandboxError: _refuse, ValidationError: _refuse_malformed}
        app = Starlette(routes=routes, exception_handlers=handlers)  # type: ignore[arg-type]
        return Guard(Hangups(Signature(app, self.sandboxes.incarnation)), token)

    async def health(self, _: Request) -> Response:
        ground, problem = self.sandboxes.ground, self.sandboxes.problem
        told = {
            "status": "unavailable" if problem else "ok",
            "problem": problem,
            "limits": describe_limits(ground) if ground else None,
            "uid": os.getuid(),
            "running": len(self.sandboxes.running()),
        }
        return _json(told)

    async def look(self, request: Request) -> Response:
        return _json(wire.Existence(self.sandboxes.exists(request.path_params["thread_id"])))

    async def acquire(self, request: Request) -> Response:
        asked = wire.adapter(wire.Acquire).validate_json(await _body(request))
        return _json(self.sandboxes.acquire(request.path_params["thread_id"], asked.ref, asked.redis))

    async def unused(self, request: Request) -> Response:
        asked = wire.adapter(wire.Unused).validate_json(await _body(request))
        return _json(wire.ThreadIds(self.sandboxes.unused(asked.redis, asked.seconds)))

    async def remove(self, request: Request) -> Response:
        asked = wire.adapter(wire.Unused).validate_json(await _body(request))
        thread_id = request.path_params["thread_id"]
        removed = await self.sandboxes.remove(thread_id, asked.redis, asked.seconds)
        return _json(wire.ThreadIds([thread_id] if removed else []))

    async def operate(self, request: Request) -> Response:
        name = request.path_params["operation"]
        if name not in OPERATIONS:
            return _json({"error": "SandboxRefused", "detail": f"there is no operation {name}"}, 404)
        kind, operation = OPERATIONS[name]
        asked = wire.adapter(kind).validate_json(await _body(request))
        sandbox = self._sandbox(request)
        async with sandbox.used():
            return _json(await operation(sandbox, asked))

    async def exec(self, request: Request) -> Response:
        asked = wire.adapter(wire.Exec).validate_json(await _body(request))
        sandbox = self._sandbox(request)
        async with sandbox.used():
            sandbox.keep_to(asked.allowed_hosts)
            await sandbox.limit(asked.limits)
            record = sandbox.commands.exec(asked.command)
            sandbox.settle()
        return _lines(_progress(sandbox, record, asked.offset, asked.command.output_chars))

    async def attach(self, request: Request) -> Response:
        asked = wire.adapter(wire.Attach).validate_json(await _body(request))
        sandbox = self._sandbox(request)
        record = sandbox.commands.find(asked.key, asked.epoch)
        if record is None:
            return Response(wire.encode(wire.Progress(unknown=True)) + b"\n")
        return _lines(_progress(sandbox, record, asked.offset, asked.output_chars))

    async def read(self, request: Request) -> Response:
        asked = wire.adapter(wire.Read).validate_json(await _body(request))
        sandbox = self._sandbox(request)
        async with sandbox.used():
            data = await sandbox.read(asked.path, asked.offset, asked.limit)
        head = wire.encode(wire.ReadHead(data.info, data.sha256))
        return Response(head + b"\n" + data.content, media_type="application/octet-stream")

    async def write(self, request: Request) -> Response:
        line, _, content = (await _body(request)).partition(b"\n")
        head = wire.adapter(wire.WriteHead).validate_json(line)
        if sum(file.size for file in head.files) + head.note_size != len(content):
            raise SandboxRefused("the sizes do not add up to what was sent")
        files, start = [], 0
        for file in head.files:
            data = content[start : start + file.size]
            files.append(FileWrite(file.path, data, file.executable, file.expect))
            start += file.size
        sandbox = self._sandbox(request)
        async with sandbox.used():
            result = await sandbox.write(files, head.key, head.epoch, content[start:])
        return _json(wire.Written(result.note, result.repeated))

    def _sandbox(self, request: Request) -> HostedSandbox:
        return self.sandboxes.get(request.path_params["thread_id"])


async def _progress(
    sandbox: HostedSandbox, record: Record, offset: int, output_chars: int
) -> AsyncIterator[wire.Progress]:
    async with sandbox.used():
        async for text, next_offset in record.follow(offset):
            yield wire.Progress(text, next_offset)
        await record.started()
    if record.failure:
        yield wire.Progress(error=wire.error_to_json(record.failure))
    else:
        yield wire.Progress(result=record.result(output_chars))


def _lines(steps: AsyncIterator[wire.Progress]) -> Response:
    async def lines() -> AsyncIterator[bytes]:
        async for step in steps:
            yield wire.encode(step) + b"\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson")


def _json(value: Any, status: int = 200) -> Response:
    return Response(wire.encode(value), status, media_type="application/json")


async def _body(request: Request) -> bytes:
    """Raises SandboxRefused once it is too long, without reading the rest."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise SandboxRefused(f"the request is longer than {MAX_BODY_BYTES} bytes")
    return bytes(body)


async def _refuse(_: Request, error: SandboxError) -> Response:
    status = next(status for kind, status in STATUSES if isinstance(error, kind))
    return _json(wire.error_to_json(error), status)


async def _refuse_malformed(_: Request, error: ValidationError) -> Response:
    return _json({"error": "SandboxRefused", "detail": f"malformed request: {error}"}, 400)


class Signature:
    """Tells with each answer which host gives it."""

    def __init__(self, app: ASGIApp, incarnation: str) -> None:
        self._app = app
        self._header = (wire.HOST_HEADER.encode(), incarnation.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def signed(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], self._header]
            await send(message)

        await self._app(scope, receive, signed)


class Hangups:
    """A client that goes away in the middle of its request ends that, and is no error of ours."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except ClientDisconnect:
            log.debug("the client of %s hung up", scope["path"])


class Guard:
    """Lets nobody in without the token, but to /health."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != "/health" and not self._admits(scope):
            response = _json({"error": "SandboxUnavailable", "detail": "wrong token for the sandbox host"}, 401)
            await response(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _admits(self, scope: Scope) -> bool:
        given = dict(scope["headers"]).get(b"authorization", b"")
        return hmac.compare_digest(given, self._expected)
