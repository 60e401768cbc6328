"""What a browser's EventSource does, and no more: it reconnects with the last id it saw, and keeps what it was sent."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx

RECONNECT_SECONDS = 0.2
ENDS = ("run.completed", "run.failed", "run.canceled")


@dataclass(frozen=True)
class Received:
    """One dispatched event; `id` is None for the system's own (waiting, keep_alive, error)."""

    id: str | None
    name: str
    data: dict[str, Any]

    @property
    def type(self) -> str:
        return str(self.data.get("type", self.name))


async def follow(
    client: httpx.AsyncClient, path: str, run_id: str, *, last_id: str | None = None, seconds: float = 120
) -> list[Received]:
    """Every event with an id, over as many connections as it takes, until the run's end.

    A connection may break, or end with an `error` event; a clean end before the run's is the server's fault.
    """
    received: list[Received] = []
    async with asyncio.timeout(seconds):
        while True:
            last = "nothing"
            try:
                async for event in connection(client, path, received[-1].id if received else last_id):
                    last = event.name
                    if event.id is not None:
                        received.append(event)
                    if event.type in ENDS and event.data.get("run_id") == run_id:
                        return received
                assert last == "error", f"a clean end after {last}, although the run goes on"
            except httpx.TransportError:
                pass
            await asyncio.sleep(RECONNECT_SECONDS)


async def connection(client: httpx.AsyncClient, path: str, last_id: str | None = None) -> AsyncIterator[Received]:
    """One connection, until the server ends it."""
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id else {})
    async with client.stream("GET", path, headers=headers, timeout=httpx.Timeout(10, read=60)) as response:
        response.raise_for_status()
        fields: dict[str, str] = {}
        async for line in response.aiter_lines():
            if line:
                name, _, value = line.partition(":")
                fields[name] = value.removeprefix(" ")
            elif fields:
                if "data" in fields:
                    yield Received(fields.get("id"), fields.get("event", "message"), json.loads(fields["data"]))
                fields = {}


def text_of(events: list[Received]) -> str:
    """The text of the last try: deltas before a resumption or a repeated request are void."""
    restarts = [i for i, event in enumerate(events) if event.type in ("run.resumed", "agent.request")]
    last = events[restarts[-1] :] if restarts else events
    return "".join(event.data["data"]["text"] for event in last if event.type == "agent.delta")


def position(event: Received) -> tuple[int, int]:
    assert event.id is not None
    ms, sequence = event.id.split("-")
    return int(ms), int(sequence)


def assert_ordered(events: list[Received]) -> None:
    """Ids strictly rise: nothing came twice, nothing out of order."""
    places = [position(event) for event in events]
    assert places == sorted(set(places))
