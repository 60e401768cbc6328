"""What a client may say over a thread's WebSocket: the acts of the HTTP API, by their own endpoints."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from pydantic import BaseModel, Field
from redis.exceptions import RedisError
from starlette.types import Scope as AsgiScope

from gateway.audit import of_frame
from gateway.auth import Principal
from gateway.deps import Services
from gateway.errors import internal, invalid, members_of, parsed, redis_away, status_of, too_large
from gateway.limits import RouteClass
from gateway.middleware import REQUEST_ID
from gateway.routes import steps, threads
from gateway.routes.bodies import ExecuteBody, HumanBody, MessageBody, NoBody, ResolveBody
from gateway.stream.ws import Answered
from shared.errors import AppError, ErrorCode, FieldError
from shared.redis import passes
from shared.types import JSON, Scope

log = logging.getLogger("trunkline.gateway")

_REFUSED = frozenset(
    {ErrorCode.INVALID_REQUEST, ErrorCode.UNSUPPORTED, ErrorCode.PAYLOAD_TOO_LARGE, ErrorCode.RATE_LIMITED}
)


class Envelope(BaseModel):
    """What every frame may have; its other fields are the act's body, as over HTTP."""

    model_config = {"extra": "allow", "strict": True}

    type: str
    id: str | int | None = Field(default=None, description="The answer repeats it.")
    idempotency_key: str | None = Field(default=None, description="As the header Idempotency-Key.")


class ApproveFrame(BaseModel):
    """The rest is the body of human-complete, or, with `as`, that of resolve."""

    model_config = {"extra": "allow", "strict": True}

    step_id: str


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sends frames, and over which socket."""

    services: Services
    caller: Principal
    scope: AsgiScope
    thread_id: str = ""


@dataclass(frozen=True, slots=True)
class _Frame:
    sender: Sender
    body: Any
    key: str | None

    @property
    def who(self) -> tuple[Services, Principal, str | None]:
        return self.sender.services, self.sender.caller, self.key


@dataclass(frozen=True, slots=True)
class Act:
    """`body`: what the fields beside the envelope's must be."""

    operation: str
    """The operation's id over HTTP."""
    body: type[BaseModel]
    limit: RouteClass
    do: Callable[[_Frame], Awaitable[BaseModel]]

    def named(self, envelope: Envelope) -> str:
        return "resolveStep" if self.do is _approve and "as" in (envelope.model_extra or {}) else self.operation


async def _execute(frame: _Frame) -> BaseModel:
    await frame.sender.services.room.check()
    return await threads.execute(frame.sender.thread_id, frame.body, *frame.who)


async def _message(frame: _Frame) -> BaseModel:
    return await threads.send_message(frame.sender.thread_id, frame.body, *frame.who)


async def _cancel(frame: _Frame) -> BaseModel:
    return await threads.cancel_thread(frame.sender.thread_id, *frame.who)


async def _approve(frame: _Frame) -> BaseModel:
    step_id, given = frame.body.step_id, frame.body.model_extra
    if step_id.partition(".")[0] != frame.sender.thread_id:
        raise AppError(ErrorCode.NOT_FOUND, f"The thread has no step {step_id[:100]}.")
    if "as" in given:
        return await steps.resolve(step_id, parsed(ResolveBody, given, "body"), *frame.who)
    return await steps.human_complete(step_id, parsed(HumanBody, given, "body"), *frame.who)


THREAD_ACTS: Mapping[str, Act] = {
    "execute": Act("execute", ExecuteBody, RouteClass.EXECUTE, _execute),
    "message": Act("sendMessage", MessageBody, RouteClass.SIGNAL, _message),
    "cancel": Act("cancelThread", NoBody, RouteClass.SIGNAL, _cancel),
    "approve": Act("completeHumanStep", ApproveFrame, RouteClass.SIGNAL, _approve),
}


class Frames:
    """Does what a client's frames say, and answers them."""

    def __init__(self, sender: Sender, acts: Mapping[str, Act]) -> None:
        self._sender = sender
        self._acts = acts

    async def answer(self, text: str) -> Answered:
        envelope = Envelope(type="")
        try:
            envelope = await self._read(text)
            done = await self._do(envelope)
        except AppError as error:
            return self._failed(envelope, error)
        except Exception as error:
            if isinstance(error, RedisError) and passes(error):
                log.warning("Redis is away: %s", error)
                return self._failed(envelope, redis_away())
            request_id = self._sender.scope[REQUEST_ID]
            log.exception("request %s: a frame crashed", request_id)
            return self._failed(envelope, internal(request_id))
        self._record(envelope, 200)
        shown = done.model_dump_json(by_alias=True).encode()
        return Answered(b'{"type":"answer","id":%b,"data":%b}' % (orjson.dumps(envelope.id), shown))

    def _failed(self, envelope: Envelope, error: AppError) -> Answered:
        self._record(envelope, status_of(error.code))
        return Answered(_error(envelope.id, error), refused=error.code in _REFUSED)

    def _record(self, envelope: Envelope, status: int) -> None:
        """For the audit log."""
        sender, act = self._sender, self._acts.get(envelope.type)
        if act is None:
            return
        step_id = (envelope.model_extra or {}).get("step_id")
        resource = ("step", step_id) if isinstance(step_id, str) else ("thread", sender.thread_id)
        if entry := of_frame(sender.scope, act.named(envelope), resource, status):
            sender.services.audit.record(entry)

    async def _read(self, text: str) -> Envelope:
        """What is none counts too. Raises AppError INVALID_REQUEST, PAYLOAD_TOO_LARGE, RATE_LIMITED."""
        try:
            return self._envelope(text)
        except AppError:
            await self._count(RouteClass.SIGNAL)
            raise

    async def _count(self, limit: RouteClass) -> None:
        await self._sender.services.limits.count_as(limit, self._sender.caller, self._sender.scope)

    def _envelope(self, text: str) -> Envelope:
        """Raises AppError INVALID_REQUEST, PAYLOAD_TOO_LARGE."""
        most = self._sender.services.settings.api.max_body_bytes
        if len(text) > most or len(text.encode()) > most:
            raise too_large(most)
        try:
            document = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise invalid([FieldError(place="body", detail=f"not JSON: {error}")]) from error
        return parsed(Envelope, document, "body")

    async def _do(self, envelope: Envelope) -> BaseModel:
        sender, act = self._sender, self._acts.get(envelope.type)
        await sender.services.auth.check(sender.caller)
        await self._count(act.limit if act else RouteClass.SIGNAL)
        if act is None:
            known = f"one of {', '.join(self._acts)}" if self._acts else "nothing: this socket only tells"
            raise invalid([FieldError(place="body.type", detail=f"should be {known}")])
        sender.caller.check(Scope.RUN)
        body = parsed(act.body, envelope.model_extra, "body")
        return await act.do(_Frame(sender, body, envelope.idempotency_key))


def _error(frame_id: str | int | None, error: AppError) -> bytes:
    document: JSON = {"type": "error", "id": frame_id, **members_of(error)}
    if error.retry_after is not None:
        document["retry_after"] = error.retry_after
    return orjson.dumps(document, default=str)
