"""Entries of a thread's stream as the gateway holds them, and the frames that clients get of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from shared.types import BUILT_IN_EVENTS, TERMINAL_EVENTS

Position = tuple[int, int]
"""A stream id as numbers, to compare by."""

START: Position = (0, 0)

EventName = Callable[[str], str]
"""An endpoint's name (the SSE field `event`) for an event of a type."""


def thread_event_name(event_type: str) -> str:
    """A tool's own type under its own name, everything built in as `task_agent_execute`."""
    return "task_agent_execute" if event_type in BUILT_IN_EVENTS else event_type


def run_event_name(event_type: str) -> str:
    return event_type


@dataclass(eq=False, slots=True)
class Entry:
    """One event. Its frames are made once for each kind of endpoint, however many subscribers get them."""

    id: bytes
    position: Position
    type: str
    run_id: str
    event: bytes
    _frames: dict[EventName, bytes] = field(default_factory=dict)

    @classmethod
    def parse(cls, entry_id: bytes, fields: Mapping[bytes, bytes]) -> "Entry":
        ms, _, sequence = entry_id.partition(b"-")
        return cls(entry_id, (int(ms), int(sequence)), fields[b"t"].decode(), fields[b"r"].decode(), fields[b"e"])

    @property
    def ends_run(self) -> bool:
        return self.type in TERMINAL_EVENTS

    def frame(self, name: EventName) -> bytes:
        made = self._frames.get(name)
        if made is None:
            made = b"id: %b\nevent: %b\ndata: %b\n\n" % (self.id, name(self.type).encode(), self.event)
            self._frames[name] = made
        return made


@dataclass(frozen=True, slots=True)
class Gap:
    """Entries that a cursor should have had and that are nowhere any more: those between the two positions."""

    after: Position
    until: Position


def following(position: Position) -> Position:
    """The first that can come after it."""
    return (position[0], position[1] + 1)


def before(position: Position) -> Position:
    """The cursor whose next entry may be the one at `position`."""
    ms, sequence = position
    return (ms, sequence - 1) if sequence else (ms - 1, 2**64 - 1)


def text_of(position: Position) -> str:
    return f"{position[0]}-{position[1]}"
