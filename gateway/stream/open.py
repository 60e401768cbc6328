"""From a request for a stream to what it gets: who may see it, from where on, and what if Redis is away just now."""

import asyncio
from collections.abc import Container
from functools import partial

from starlette.responses import Response

from gateway.auth import Principal
from gateway.errors import invalid, redis_away
from gateway.revocations import Revocations
from gateway.stream import projections
from gateway.stream.chat import ChatStream
from gateway.stream.entries import START, Position, Projection, Source, before
from gateway.stream.fanout import Cursor, Fanout
from gateway.stream.feed import Wake
from gateway.stream.plain import PlainStream
from gateway.stream.sse import EventStream
from gateway.stream.subscription import Opening, Subscription, Wanted
from shared import keys
from shared.config import StreamSettings
from shared.errors import AppError, ErrorCode, FieldError
from shared.ids import STREAM_ID, is_run_id, is_thread_id, stream_position, thread_of
from shared.keys import ThreadKeys, thread_keys_of
from shared.types import JSON

PATIENCE_SECONDS = 1.0
"""How long a request waits for Redis before it is answered 200, an `error` event, and held."""
SOCKET_PATIENCE_SECONDS = 10.0
"""The same before a WebSocket is refused (503): long enough for a gateway that is only busy."""
ALIAS_SECONDS = 0.5
"""Pause between looks whether a legacy stream's name stands for a thread by now."""
ALIAS_PATIENCE_SECONDS = 0.2
"""How long such a request waits for the first look, before it is answered 200 and waits."""


class Streams:
    """All event streams of a gateway process."""

    def __init__(self, fanout: Fanout, limits: StreamSettings, revocations: Revocations) -> None:
        self.fanout = fanout
        self._revocations = revocations
        self._limits = limits

    async def of_thread(self, caller: Principal, thread_id: str, last_id: str | None, run_id: str | None) -> Response:
        """A thread's stream, or what a run of it adds to it. Raises AppError INVALID_REQUEST, NOT_FOUND."""
        if run_id is None:
            return await self._answer(caller, *self._thread(caller, thread_id, last_id, projections.thread_sse))
        if not is_thread_id(thread_id):
            raise _no_such("thread", thread_id)
        if not is_run_id(run_id) or thread_of(run_id) != thread_id:
            raise _no_such("run", run_id)
        return await self._answer(caller, *self._run(caller, run_id, last_id, projections.thread_sse))

    async def of_run(self, caller: Principal, run_id: str, last_id: str | None, show: Projection) -> Response:
        """A run's stream. Raises AppError INVALID_REQUEST, NOT_FOUND."""
        return await self._answer(caller, *self._run(caller, run_id, last_id, show))

    async def of_flow(
        self, caller: Principal, flow_uuid: str, flow_input_uuid: str, last_id: str | None
    ) -> EventStream:
        """The stream of the thread that a legacy name stands for; waits for one. Raises AppError INVALID_REQUEST."""
        about = {"flowUuid": flow_uuid, "flowInputUuid": flow_input_uuid}
        wanted = Wanted(about, projections.thread_sse, awaited=True)
        alias = keys.flow(str(caller.tenant), flow_uuid, flow_input_uuid)
        opening = partial(self._open_flow, caller, alias, parse_last_id(last_id))
        subscription = self._subscription(caller, wanted, opening, idle_limit=True)
        await self._is_open(subscription, ALIAS_PATIENCE_SECONDS)
        return EventStream(subscription)

    async def thread_socket(self, caller: Principal, thread_id: str, last_id: str | None) -> Subscription:
        """Raises AppError INVALID_REQUEST, NOT_FOUND, UNAVAILABLE."""
        return await self._opened(caller, *self._thread(caller, thread_id, last_id, projections.thread_message))

    async def log_socket(self, caller: Principal, run_id: str, last_id: str | None) -> Subscription:
        """Raises AppError INVALID_REQUEST, NOT_FOUND, UNAVAILABLE."""
        return await self._opened(caller, *self._run(caller, run_id, last_id, projections.log_message))

    async def agents_socket(
        self, caller: Principal, agents: Container[str] | None, last_id: str | None
    ) -> Subscription:
        """The agent-level events of a workspace, of some agents or all; without `last_id` those from now on.

        Raises AppError INVALID_REQUEST, UNAVAILABLE.
        """
        wanted = Wanted({"workspace_id": caller.workspace}, projections.agent_message)
        position = parse_last_id(last_id) if last_id else None
        source = Source.of_agents(caller.workspace)

        async def opening(wake: Wake) -> Cursor:
            return await self.fanout.follow(source, position, wake, owners=agents, project=caller.project)

        return await self._opened(caller, wanted, opening)

    def _thread(
        self, caller: Principal, thread_id: str, last_id: str | None, show: Projection
    ) -> tuple[Wanted, Opening]:
        if not is_thread_id(thread_id):
            raise _no_such("thread", thread_id)
        wanted = Wanted({"thread_id": thread_id, "run_id": None}, show)
        return wanted, partial(self._open_thread, caller, thread_id, parse_last_id(last_id))

    def _run(self, caller: Principal, run_id: str, last_id: str | None, show: Projection) -> tuple[Wanted, Opening]:
        if not is_run_id(run_id):
            raise _no_such("run", run_id)
        wanted = Wanted({"thread_id": thread_of(run_id), "run_id": run_id}, show, run_id)
        return wanted, partial(self._open_run, caller, run_id, parse_last_id(last_id))

    async def of_chat(self, caller: Principal, run_id: str, hello: JSON) -> Response:
        """A run's text as chunks; `hello` is the first one."""
        wanted = Wanted({}, projections.run_sse, run_id)
        opening = partial(self._open_run, caller, run_id, START)
        return ChatStream(self._subscription(caller, wanted, opening, idle_limit=True), hello)

    async def of_new_run(self, caller: Principal, run_id: str) -> Response:
        """All of a run as unnamed events, then `{"event": "end"}`."""
        wanted, opening = self._run(caller, run_id, None, projections.plain_sse)
        return PlainStream(self._subscription(caller, wanted, opening, idle_limit=True))

    async def _answer(self, caller: Principal, wanted: Wanted, opening: Opening) -> Response:
        subscription = self._subscription(caller, wanted, opening, idle_limit=True)
        tried = subscription.opening
        if await self._is_open(subscription) and not _away(tried) and tried.result() is None:
            return Response(status_code=204)
        return EventStream(subscription)

    async def _opened(self, caller: Principal, wanted: Wanted, opening: Opening) -> Subscription:
        """For a WebSocket, whose clients all come again by themselves: a Redis that is away is said before it opens.

        Pings find the dead ones, so that silence is no reason to close it.
        """
        subscription = self._subscription(caller, wanted, opening, idle_limit=False)
        try:
            # Never without waiting: that Redis is back is noticed by those who wait for it.
            away = self.fanout.reader.away
            await asyncio.wait({subscription.opening}, timeout=PATIENCE_SECONDS if away else SOCKET_PATIENCE_SECONDS)
            if not await self._is_open(subscription, 0):
                raise redis_away()
            subscription.opening.result()
        except BaseException:
            subscription.close()
            raise
        return subscription

    async def _is_open(self, subscription: Subscription, patience_seconds: float = PATIENCE_SECONDS) -> bool:
        """Whether there was an answer in time. Raises AppError NOT_FOUND."""
        opening = subscription.opening
        if not self.fanout.reader.away:
            await asyncio.wait({opening}, timeout=patience_seconds)
        if opening.done() and not _away(opening):
            opening.result()
        return opening.done()

    def _subscription(self, caller: Principal, wanted: Wanted, opening: Opening, *, idle_limit: bool) -> Subscription:
        reader = self.fanout.reader
        subscription = Subscription(wanted, opening, reader=reader, limits=self._limits, idle_limit=idle_limit)
        self._revocations.watch(subscription, caller)
        return subscription

    async def _open_thread(self, caller: Principal, thread_id: str, position: Position, wake: Wake) -> Cursor:
        names = ("workspace", "project")
        owner = await self.fanout.reader.ask("HMGET", ThreadKeys(thread_id).metadata, *names)
        if owner[0] is None:
            owner = await self.fanout.older.thread(thread_id, *names)
        if not _sees(caller, *owner):
            raise _no_such("thread", thread_id)
        return await self.fanout.follow(Source.of_thread(thread_id), position, wake)

    async def _open_run(self, caller: Principal, run_id: str, position: Position, wake: Wake) -> Cursor | None:
        run = thread_keys_of(run_id).run(run_id)
        names = ("workspace", "project", "first_event", "last_event")
        *owner, first, last = await self.fanout.reader.ask("HMGET", run, *names)
        if owner[0] is None:
            *owner, first, last = await self.fanout.older.run(run_id, *names)
        if not _sees(caller, *owner):
            raise _no_such("run", run_id)
        if last is not None and position >= stream_position(last.decode()):
            return None
        position = max(position, before(stream_position(first.decode())))
        return await self.fanout.follow(Source.of_thread(thread_of(run_id)), position, wake, owners={run_id})

    async def _open_flow(self, caller: Principal, alias: str, position: Position, wake: Wake) -> Cursor:
        thread_id = await self._named(alias) or await self.fanout.older.named(alias)
        while not thread_id:  # whoever gives the name from now on also tells Redis
            await asyncio.sleep(ALIAS_SECONDS)
            thread_id = await self._named(alias)
        return await self._open_thread(caller, thread_id, position, wake)

    async def _named(self, alias: str) -> str | None:
        found = await self.fanout.reader.ask("GET", alias)
        return found.decode() if found else None


def parse_last_id(last_id: str | None) -> Position:
    """Raises AppError INVALID_REQUEST."""
    if not last_id:
        return START
    if not STREAM_ID.fullmatch(last_id):
        raise invalid([FieldError(place="last_id", detail="should be the id of an event, such as 1732150000000-0")])
    return stream_position(last_id)


def resume_after(*given: str | None) -> str | None:
    """The first of the places that is given. Each has to be one. Raises AppError INVALID_REQUEST."""
    for place in given:
        parse_last_id(place)
    return next(filter(None, given), None)


def _away(opening: asyncio.Future[Cursor | None]) -> bool:
    """Whether it failed only because SQL is away: the stream says so, and the client comes again."""
    error = opening.exception()
    return isinstance(error, AppError) and error.code is ErrorCode.UNAVAILABLE


def _sees(caller: Principal, workspace: bytes | None, project: bytes | None) -> bool:
    return workspace is not None and caller.sees(workspace.decode(), project.decode() if project else None)


def _no_such(kind: str, name: str) -> AppError:
    return AppError(ErrorCode.NOT_FOUND, f"There is no {kind} {name[:100]}.")
