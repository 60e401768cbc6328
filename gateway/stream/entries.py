"""Entries of a stream as the gateway holds them, and where streams are."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Self

from shared import keys
from shared.ids import stream_position
from shared.keys import ThreadKeys
from shared.types import TERMINAL_EVENTS

Position = tuple[int, int]
"""A stream id as numbers, to compare by."""

START: Position = (0, 0)

Projection = Callable[["Entry"], bytes]
"""What the clients of one kind of endpoint get of an entry, nothing (empty) for some: gateway/stream/projections.py."""


@dataclass(eq=False, slots=True)
class Entry:
    """One event. It is projected once for each kind of endpoint, however many subscribers get it."""

    id: bytes
    position: Position
    type: str
    owner: str
    """The run that it is of; of an agent-level event, the agent."""
    event: bytes
    project: str = ""
    """Of an agent-level event: the one that it is of, if any."""
    previous: Position = START
    """The entry before it, there or not, where the stream says so."""
    _shown: dict[Projection, bytes] = field(default_factory=dict)

    @classmethod
    def parse(cls, entry_id: bytes, fields: Mapping[bytes, bytes]) -> Self:
        ms, _, sequence = entry_id.partition(b"-")
        kind, owner, project = fields[b"t"].decode(), fields[b"r"].decode(), fields.get(b"p", b"").decode()
        previous = position_of(fields.get(b"b"))
        return cls(entry_id, (int(ms), int(sequence)), kind, owner, fields[b"e"], project, previous)

    @property
    def ends_run(self) -> bool:
        return self.type in TERMINAL_EVENTS

    def shown(self, projection: Projection) -> bytes:
        made = self._shown.get(projection)
        if made is None:
            made = self._shown[projection] = projection(self)
        return made


@dataclass(frozen=True, slots=True)
class Gap:
    """Entries that a cursor should have had and that are nowhere any more: those between the two positions."""

    after: Position
    until: Position


@dataclass(frozen=True, slots=True)
class Source:
    """A stream in Redis."""

    name: str
    stream: str
    channel: str
    """The sharded pub/sub channel that tells of what is new in it."""
    end: tuple[str, ...]
    """The command that says where it ends, and of a thread from where on Redis has it."""
    thread_id: str | None = None
    """None: its oldest entries go for good when new ones come, and all of them some time after the last one. A thread's
    are then in SQL."""

    @classmethod
    def of_thread(cls, thread_id: str) -> Self:
        k = ThreadKeys(thread_id)
        end = ("HMGET", k.metadata, "last_id", "kept_from")
        return cls(f"thread {thread_id}", k.stream, k.channel, end, thread_id)

    @classmethod
    def of_agents(cls, workspace: str) -> Self:
        key = keys.channel(workspace)
        return cls(f"the agents of workspace {workspace}", key, key, ("GET", keys.channel_end(workspace)))


def following(position: Position) -> Position:
    """The first that can come after it."""
    return (position[0], position[1] + 1)


def before(position: Position) -> Position:
    """The cursor whose next entry may be the one at `position`."""
    ms, sequence = position
    return (ms, sequence - 1) if sequence else (ms - 1, 2**64 - 1)


def text_of(position: Position) -> str:
    return f"{position[0]}-{position[1]}"


def position_of(stream_id: bytes | None) -> Position:
    return stream_position(stream_id.decode()) if stream_id else START
