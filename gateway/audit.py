"""The audit log: each change that was asked for and done, and each access that was refused.

Entries are written behind the requests' backs, many at once. While SQL is away they wait, as many as there is room
for; those beyond are counted in `dropped`, and the log says so. Of callers whom nobody knows there are so many in a
minute, and then one entry that says how many were left out.
"""

import asyncio
import logging
from collections import deque
from datetime import UTC, datetime, timedelta

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.auth.principal import DEFAULT_WORKSPACE, Principal
from gateway.metrics import GatewayMetrics
from gateway.middleware import REQUEST_ID
from gateway.strangers import Strangers
from shared.config import AuditSettings
from shared.db import audit
from shared.db.audit import Entry, Outcome
from shared.db.engine import Database
from shared.errors import AppError
from shared.ids import new_id

log = logging.getLogger("trunkline.gateway.audit")

PRINCIPAL = "trunkline.principal"
"""A request's Principal in the ASGI scope."""
WRITE_SECONDS = 1.0
"""Pause between writes, and so what a gateway that is killed may lose."""
AWAY_SECONDS = 5.0
BATCH = 500
FORGET_SECONDS = 3600.0
NOT_AUDITED = frozenset({"createStreamTicket", "validateWorkflow"})
"""They change nothing; the first comes before each stream of a page."""
READS = frozenset({"GET", "HEAD", "OPTIONS"})
REFUSED = frozenset({401, 403})
ANSWERS = frozenset({"http.response.start", "websocket.http.response.start"})
"""The second refuses a WebSocket."""

LEFT_OUT = "leftOut"
"""The action of the entry that stands for those that were left out."""

KINDS = {"agent": "thread"}
"""What is at addresses that call it something else."""
_ID_CHARS, _ACTION_CHARS = 200, 100


class AuditLog:
    def __init__(self, db: Database, settings: AuditSettings, metrics: GatewayMetrics | None = None) -> None:
        self.dropped = 0
        """Entries that were lost: there was no room for them, or SQL would not have them."""
        self._db = db
        self._settings = settings
        self._count = (metrics or GatewayMetrics()).audit_entries.labels
        self._strangers = Strangers(settings.unknown_per_minute)
        self._waiting: deque[Entry] = deque()
        self._told = 0
        self._one_at_a_time = asyncio.Lock()

    def record(self, entry: Entry) -> None:
        """Takes no time, and never fails."""
        if not self._settings.enabled:
            return
        if entry.actor is None and not self._strangers.admit(entry.address, entry.at):
            self._count("left_out").inc()
        elif len(self._waiting) >= self._settings.max_waiting:
            self._drop()
        else:
            self._waiting.append(entry)

    async def run(self) -> None:
        """Writes until cancelled."""
        forget_at = asyncio.get_running_loop().time() + FORGET_SECONDS
        while True:
            await asyncio.sleep(WRITE_SECONDS if await self.write() else AWAY_SECONDS)
            if asyncio.get_running_loop().time() >= forget_at:
                forget_at += FORGET_SECONDS
                await self._forget()

    async def write(self) -> bool:
        """All that waits; False where SQL is away and something still waits. Never raises."""
        self._tell_of_left_out(datetime.now(UTC))
        try:
            async with self._one_at_a_time:
                await self._write_waiting()
        except AppError as error:
            log.warning("%d entries of the audit log wait: %s", len(self._waiting), error.detail)
            return False
        finally:
            self._tell_of_dropped()
        return True

    async def close(self) -> None:
        """Writes what is left to write, if SQL lets it. Never raises."""
        self._tell_of_left_out(None)
        await self.write()

    async def _write_waiting(self) -> None:
        """Raises AppError UNAVAILABLE."""
        while self._waiting:
            batch = [self._waiting[place] for place in range(min(BATCH, len(self._waiting)))]
            await self._write(batch)
            for _ in batch:
                self._waiting.popleft()

    async def _write(self, batch: list[Entry]) -> None:
        """What SQL would never take is lost alone. Raises AppError UNAVAILABLE; what of it is written may be again."""
        try:
            async with self._db.begin() as c:
                await audit.add(c, batch)
        except AppError:
            raise
        except Exception:
            if len(batch) > 1:
                half = len(batch) // 2
                await self._write(batch[:half])
                await self._write(batch[half:])
                return
            self._drop()
            log.exception("the database would not have 1 entry of the audit log: %s", batch[0].id)
        else:
            self._count("written").inc(len(batch))

    async def _forget(self) -> None:
        before = datetime.now(UTC) - timedelta(days=self._settings.retention_days)
        try:
            async with self._db.begin() as c:
                await audit.forget(c, before)
        except AppError as error:
            log.warning("old entries of the audit log are deleted later: %s", error.detail)

    def _drop(self) -> None:
        self.dropped += 1
        self._count("lost").inc()

    def _tell_of_left_out(self, now: datetime | None) -> None:
        if (detail := self._strangers.told(now)) is None:
            return
        none = dict.fromkeys(("actor", "user_uuid", "resource_type", "resource_id", "request_id", "address"))
        told = Entry(
            new_id(), DEFAULT_WORKSPACE, datetime.now(UTC), action=LEFT_OUT, outcome="refused", detail=detail, **none
        )
        self._waiting.append(told)

    def _tell_of_dropped(self) -> None:
        if self.dropped > self._told:
            log.error("%d entries of the audit log were lost", self.dropped - self._told)
            self._told = self.dropped


class Audited:
    """Records requests by their answers. Pure ASGI; what is a change is told by the method."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_on(message: Message) -> None:
            if message["type"] in ANSWERS and (entry := _of_answer(scope, message)):
                scope["app"].state.services.audit.record(entry)
            await send(message)

        await self.app(scope, receive, send_on if scope["type"] in ("http", "websocket") else send)


def of_frame(scope: Scope, action: str, resource: tuple[str, str], status: int) -> Entry | None:
    """What a frame over the scope's WebSocket asked for, by the status that its answer would have over HTTP."""
    outcome = _outcome(status, changes=True)
    return _entry(scope, action, resource, status, outcome) if outcome else None


def _of_answer(scope: Scope, start: Message) -> Entry | None:
    action, status = _operation(scope), start["status"]
    read = scope.get("method", "GET") in READS
    outcome = _outcome(status, changes=not read and PRINCIPAL in scope and action not in NOT_AUDITED)
    made = Headers(raw=start["headers"]).get("location")
    return _entry(scope, action, _resource(scope, made or ""), status, outcome, made=made) if outcome else None


def _outcome(status: int, *, changes: bool) -> Outcome | None:
    """None for what is not written down: reads, and requests that were wrong or came too often."""
    if status in REFUSED:
        return "refused"
    if not changes:
        return None
    if status < 400:
        return "done"
    return "failed" if status >= 500 else None


def _entry(
    scope: Scope,
    action: str,
    resource: tuple[str | None, str | None],
    status: int,
    outcome: Outcome,
    *,
    made: str | None = None,
) -> Entry:
    """`made`: where what was made is."""
    caller: Principal | None = scope.get(PRINCIPAL)
    path = None if caller else {"path": _text(scope["path"], _ID_CHARS)}
    kind, resource_id = resource
    return Entry(
        id=new_id(),
        # Whom nobody knows is the operator's concern, whose own workspace is the default one.
        workspace=caller.workspace if caller else DEFAULT_WORKSPACE,
        at=datetime.now(UTC),
        actor=caller.key_id if caller else None,
        user_uuid=caller.user if caller else None,
        action=_text(action, _ACTION_CHARS),
        resource_type=kind,
        resource_id=None if resource_id is None else _text(resource_id, _ID_CHARS),
        outcome=outcome,
        request_id=scope.get(REQUEST_ID),
        address=str(scope["client"][0])[:64] if scope.get("client") else None,
        detail={"status": status, **(path or {}), **({"made": made} if made else {})},
    )


def _operation(scope: Scope) -> str:
    """The operation's id, a WebSocket's name, or what was asked for where there is neither."""
    route = scope.get("route")
    if scope["type"] == "websocket":
        return getattr(route, "name", None) or f"WebSocket {scope['path']}"
    return getattr(route, "operation_id", None) or f"{scope['method']} {getattr(route, 'path', scope['path'])}"


def _resource(scope: Scope, location: str) -> tuple[str | None, str | None]:
    """What the path names first; of what was made, what the answer says."""
    for name, value in scope.get("path_params", {}).items():
        return name.removesuffix("_id")[:50], str(value)
    _, _, place = location.rpartition("/api/")
    kind, _, made = place.partition("/")
    return (KINDS.get(kind, kind.removesuffix("s"))[:50], made) if made else (None, None)


def _text(value: str, most_chars: int) -> str:
    """As Postgres takes it."""
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}")[:most_chars]
