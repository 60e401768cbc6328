"""The HTTP side of the sandbox host: a token is asked for, the rest is a table of operations (wire.py)."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from shared.types import JSON
from workflow.sandbox import wire
from workflow.sandbox.base import FileWrite, SandboxRefused
from workflow.sandbox.ground import describe_limits
from workflow.sandbox.guard import body_of, guarded, no_operation, told
from workflow.sandbox.handed import Handed
from workflow.sandbox.hosted import HostedSandbox
from workflow.sandbox.record import Record
from workflow.sandbox.sandboxes import Sandboxes
from workflow.sandbox.transfers import Transfers
from workflow.sandbox.tunnel import Tunnel

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
        transfers = Transfers(self._transfer)
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
            Route("/sandboxes/{thread_id}/ports/{port:int}", Tunnel(self._dial), methods=["POST"]),
            Route("/sandboxes/{thread_id}/{operation}", self.operate, methods=["POST"]),
        ]
        return guarded(routes, self.sandboxes.incarnation, token)

    async def health(self, _: Request) -> Response:
        ground, problem = self.sandboxes.ground, self.sandboxes.problem
        state = {
            "status": "unavailable" if problem else "ok",
            "problem": problem,
            "limits": describe_limits(ground) if ground else None,
            "uid": os.getuid(),
            "running": len(self.sandboxes.running()),
        }
        return told(state)

    async def look(self, request: Request) -> Response:
        return told(wire.Existence(self.sandboxes.exists(request.path_params["thread_id"])))

    async def acquire(self, request: Request) -> Response:
        asked = wire.adapter(wire.Acquire).validate_json(await body_of(request))
        return told(self.sandboxes.acquire(request.path_params["thread_id"], asked.ref, asked.redis))

    async def unused(self, request: Request) -> Response:
        asked = wire.adapter(wire.Unused).validate_json(await body_of(request))
        return told(wire.ThreadIds(self.sandboxes.unused(asked.redis, asked.seconds)))

    async def remove(self, request: Request) -> Response:
        asked = wire.adapter(wire.Unused).validate_json(await body_of(request))
        thread_id = request.path_params["thread_id"]
        removed = await self.sandboxes.remove(thread_id, asked.redis, asked.seconds)
        return told(wire.ThreadIds([thread_id] if removed else []))

    async def operate(self, request: Request) -> Response:
        name = request.path_params["operation"]
        if name not in OPERATIONS:
            return no_operation(name)
        kind, operation = OPERATIONS[name]
        asked = wire.adapter(kind).validate_json(await body_of(request))
        sandbox = self._sandbox(request)
        async with sandbox.used():
            return told(await operation(sandbox, asked))

    async def exec(self, request: Request) -> Response:
        asked = wire.adapter(wire.Exec).validate_json(await body_of(request))
        sandbox = self._sandbox(request)
        async with sandbox.used():
            sandbox.keep_to(asked.allowed_hosts)
            await sandbox.limit(asked.limits)
            record = sandbox.commands.exec(asked.command)
            sandbox.settle()
        return _lines(_progress(sandbox, record, asked.offset, asked.command.output_chars))

    async def attach(self, request: Request) -> Response:
        asked = wire.adapter(wire.Attach).validate_json(await body_of(request))
        sandbox = self._sandbox(request)
        record = sandbox.commands.find(asked.key, asked.epoch)
        if record is None:
            return Response(wire.encode(wire.Progress(unknown=True)) + b"\n")
        return _lines(_progress(sandbox, record, asked.offset, asked.output_chars))

    async def read(self, request: Request) -> Response:
        asked = wire.adapter(wire.Read).validate_json(await body_of(request))
        sandbox = self._sandbox(request)
        async with sandbox.used():
            data = await sandbox.read(asked.path, asked.offset, asked.limit)
        head = wire.encode(wire.ReadHead(data.info, data.sha256))
        return Response(head + b"\n" + data.content, media_type="application/octet-stream")

    async def write(self, request: Request) -> Response:
        line, _, content = (await body_of(request)).partition(b"\n")
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
        return told(wire.Written(result.note, result.repeated))

    def _transfer(self, thread_id: str, request: JSON) -> AbstractAsyncContextManager[Handed]:
        return self.sandboxes.get(thread_id).transfer(request)

    @asynccontextmanager
    async def _dial(self, thread_id: str, port: int) -> AsyncIterator[tuple[Handed, Mapping[str, str]]]:
        async with self.sandboxes.get(thread_id).dial(port) as handed:
            yield handed, {}

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
