"""From a request for a stream to the answer: who may see it, from where on, and what if Redis is away just now."""

import asyncio

from starlette.responses import Response

from gateway.auth import Principal
from gateway.errors import invalid
from gateway.stream.chat import ChatStream
from gateway.stream.entries import START, Position, before, run_event_name, thread_event_name
from gateway.stream.fanout import Cursor, Fanout, Wake
from gateway.stream.sse import EventStream, StreamRequest
from shared.config import StreamSettings
from shared.errors import AppError, ErrorCode, FieldError
from shared.ids import STREAM_ID, is_run_id, is_thread_id, stream_position, thread_of
from shared.keys import ThreadKeys, thread_keys_of
from shared.types import JSON

PATIENCE_SECONDS = 1.0
"""How long a request waits for Redis before it is answered 200, an `error` event, and held."""


class Streams:
    """All event streams of a gateway process."""

    def __init__(self, fanout: Fanout, limits: StreamSettings) -> None:
        self.fanout = fanout
        self._limits = limits

    async def of_thread(self, caller: Principal, thread_id: str, last_id: str | None, run_id: str | None) -> Response:
        """A thread's stream, or what a run of it adds to it. Raises AppError INVALID_REQUEST, NOT_FOUND."""
        if not is_thread_id(thread_id):
            raise _no_such("thread", thread_id)
        if run_id is not None and (not is_run_id(run_id) or thread_of(run_id) != thread_id):
            raise _no_such("run", run_id)
        return await self._answer(caller, StreamRequest(thread_id, run_id, thread_event_name), last_id)

    async def of_run(self, caller: Principal, run_id: str, last_id: str | None) -> Response:
        """A run's stream. Raises AppError INVALID_REQUEST, NOT_FOUND."""
        if not is_run_id(run_id):
            raise _no_such("run", run_id)
        return await self._answer(caller, StreamRequest(thread_of(run_id), run_id, run_event_name), last_id)

    async def of_chat(self, caller: Principal, run_id: str, hello: JSON) -> Response:
        """A run's text as chunks; `hello` is the first one."""
        news = asyncio.Event()
        request = StreamRequest(thread_of(run_id), run_id, run_event_name)
        opening = asyncio.create_task(self._open(caller, request, START, news.set))
        return ChatStream(request, opening, news=news, reader=self.fanout.reader, limits=self._limits, hello=hello)

    async def _answer(self, caller: Principal, request: StreamRequest, last_id: str | None) -> Response:
        news = asyncio.Event()
        opening = asyncio.create_task(self._open(caller, request, parse_last_id(last_id), news.set))
        if not self.fanout.reader.away:
            await asyncio.wait({opening}, timeout=PATIENCE_SECONDS)
        if opening.done() and not _away(opening) and opening.result() is None:
            return Response(status_code=204)
        return EventStream(request, opening, news=news, reader=self.fanout.reader, limits=self._limits)

    async def _open(self, caller: Principal, request: StreamRequest, position: Position, wake: Wake) -> Cursor | None:
        """A cursor; None when it would be at the end of a finished run. Raises AppError NOT_FOUND."""
        ask, run_id = self.fanout.reader.ask, request.run_id
        if run_id is None:
            [workspace] = await ask("HMGET", ThreadKeys(request.thread_id).metadata, "workspace")
            if workspace is None:
                workspace = await self.fanout.older.workspace(request.thread_id)
            if _is_not(caller, workspace):
                raise _no_such("thread", request.thread_id)
        else:
            run = thread_keys_of(run_id).run(run_id)
            workspace, first, last = await ask("HMGET", run, "workspace", "first_event", "last_event")
            if workspace is None:
                workspace, first, last = await self.fanout.older.run(run_id)
            if _is_not(caller, workspace):
                raise _no_such("run", run_id)
            if last is not None and position >= stream_position(last.decode()):
                return None
            position = max(position, before(stream_position(first.decode())))
        return await self.fanout.follow(request.thread_id, position, wake, run_id=run_id)


def parse_last_id(last_id: str | None) -> Position:
    """Raises AppError INVALID_REQUEST."""
    if not last_id:
        return START
    if not STREAM_ID.fullmatch(last_id):
        raise invalid([FieldError(place="last_id", detail="should be the id of an event, such as 1732150000000-0")])
    return stream_position(last_id)


def _away(opening: asyncio.Task[Cursor | None]) -> bool:
    """Whether it failed only because SQL is away: the stream says so, and the client comes again."""
    error = opening.exception()
    return isinstance(error, AppError) and error.code is ErrorCode.UNAVAILABLE


def _is_not(caller: Principal, workspace: bytes | None) -> bool:
    return workspace is None or workspace.decode() != caller.workspace


def _no_such(kind: str, name: str) -> AppError:
    return AppError(ErrorCode.NOT_FOUND, f"There is no {kind} {name[:100]}.")
