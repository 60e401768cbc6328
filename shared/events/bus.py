"""The event bus: events stored under a topic, and the steps that wait for them.

Storing an event and finding its waiters is one script, looking back and registering a waiter another, both on the
topic's slot: whichever comes first, the other finds it. A waiter gets the first event that it has not had yet, and is
taken away only after its step was answered (which a repetition does not change): a crash in between loses nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import orjson
from redis.asyncio import Redis

from shared import keys
from shared.redis import patiently, redis_ms
from shared.scripts import Scripts
from shared.types import JSON


@dataclass(frozen=True, slots=True)
class Topic:
    """Where an event is stored and looked for: `place` is `k:KEY` (`k:` without one) or `r:RUN`, for one run only."""

    workspace: str
    name: str
    place: str

    @classmethod
    def of(cls, workspace: str, name: str, *, key: str | None = None, run_id: str | None = None) -> Self:
        return cls(workspace, name, f"r:{run_id}" if run_id else f"k:{key or ''}")

    @classmethod
    def parse(cls, member: str) -> Self:
        return cls(*orjson.loads(member))

    @property
    def member(self) -> str:
        return orjson.dumps([self.workspace, self.name, self.place]).decode()

    @property
    def keys(self) -> keys.TopicKeys:
        return keys.TopicKeys(self.member)


@dataclass(frozen=True, slots=True)
class Event:
    """`id` orders the events of a topic."""

    id: str
    name: str
    payload: Any
    key: str | None

    @classmethod
    def parse(cls, event_id: str, event: str) -> Self:
        return cls(event_id, **orjson.loads(event))

    def as_json(self) -> JSON:
        return {"id": self.id, "name": self.name, "payload": self.payload, "key": self.key}


class EventBus:
    """`retention_seconds`: how long an event waits for those who come later, of which each topic keeps `max_events`.

    `patience_seconds`, `replicas`: as of `Scripts`.
    """

    def __init__(
        self,
        client: Redis,
        *,
        retention_seconds: float,
        max_events: int,
        patience_seconds: float | None,
        replicas: int = 0,
    ) -> None:
        self._client = client
        self._scripts = Scripts(
            client, __package__, "publish", "register", "matches", patience_seconds=patience_seconds, replicas=replicas
        )
        self._retention_ms = int(retention_seconds * 1000)
        self._max_events = max_events
        self._patience_seconds = patience_seconds

    async def publish(
        self, topic: Topic, payload: Any, *, key: str | None = None, event_key: str | None = None
    ) -> tuple[str, bool]:
        """Stores an event. Returns its id, and whether somebody waits for it (then: deliver).

        `event_key` names the event itself: published again under the same one, it is the same event.
        """
        event = orjson.dumps({"name": topic.name, "payload": payload, "key": key})
        k = topic.keys
        names = [k.events, k.waiters, k.deliveries, k.event_id(event_key or "")]
        args: list[Any] = [topic.member, event, self._retention_ms, self._max_events, "1" if event_key else ""]
        event_id, waited_for = await self._scripts.call("publish", names, args)
        return str(event_id), bool(waited_for)

    async def register(self, topic: Topic, waiter: str, after: str) -> Event | None:
        """Registers a waiter, unless an event is there: that one. `after`: the last event that does not count."""
        k = topic.keys
        args = [waiter, after.partition("-")[0]]
        found = await self._scripts.call("register", [k.events, k.waiters], args)
        return Event.parse(*found) if found else None

    async def matches(self, topic: Topic, limit: int, skip: int = 0) -> list[tuple[str, Event]]:
        """Waiters whose event has come, without the first `skip` ones. None at all: no delivery is needed any more."""
        k = topic.keys
        args: list[str | int] = [topic.member, limit, skip]
        found = await self._scripts.call("matches", [k.events, k.waiters, k.deliveries], args)
        rows = zip(found[::3], found[1::3], found[2::3], strict=True)
        return [(waiter, Event.parse(event_id, event)) for waiter, event_id, event in rows]

    async def forget(self, topic: Topic, *waiters: str) -> None:
        """They wait no more."""
        if waiters:
            await self._do(lambda: self._client.zrem(topic.keys.waiters, *waiters))

    async def deliveries(self, shards: Iterable[int], limit: int) -> list[str]:
        """Topics (as `Topic.parse` takes them) with an event that somebody still waits for, up to so many a shard."""
        now, wanted = await redis_ms(self._client, self._patience_seconds), list(shards)
        pipeline = self._client.pipeline(transaction=False)
        for shard in wanted:
            pipeline.zrangebyscore(keys.deliveries(shard), "-inf", now, start=0, num=limit)
        found = await pipeline.execute() if wanted else []
        return [str(member) for members in found for member in members]

    async def postpone(self, member: str, seconds: float) -> None:
        """A topic that still needs delivery gets it so much later, or with its next event."""
        due = await redis_ms(self._client, self._patience_seconds) + int(seconds * 1000)
        await self._do(lambda: self._client.zadd(keys.TopicKeys(member).deliveries, {member: due}, xx=True))

    async def _do(self, call: Any) -> Any:
        return await patiently(call, self._patience_seconds)
