"""A run's log: those of its events that tell somebody who reads along what happened, as lines."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal

import orjson
from pydantic import BaseModel, Field

from shared.history.reads import History
from shared.threads.types import Run
from shared.types import JSON, EventType

READ_AT_ONCE = 500
CALL_CHARS = 1000  # of a call's arguments

_ENDS = {
    EventType.RUN_QUEUED: "queued",
    EventType.RUN_STARTED: "started",
    EventType.RUN_RESUMED: "resumed",
    EventType.RUN_WAITING: "waiting",
    EventType.RUN_COMPLETED: "completed",
    EventType.RUN_CANCELED: "canceled",
    EventType.RUN_ROLLED_BACK: "rolled back",
}


class LogLine(BaseModel):
    id: str = Field(description="Of its event: resume after it.")
    time: datetime | str
    run_id: str
    step_id: str | None
    attempt: int | None
    level: Literal["debug", "info", "warning", "error"]
    source: Literal["run", "model", "tool", "log"]
    stream: str | None = Field(default=None, description="Of a tool's output: stdout or stderr.")
    text: str


def line_of(entry_id: bytes, event_type: str, event: bytes) -> LogLine | None:
    """None for what is no matter of the log: deltas, answers, a tool's own events."""
    told = _TOLD.get(event_type)
    if told is None:
        return None
    document = orjson.loads(event)
    line = {"level": "info", **told(event_type, document.get("data") or {})}
    fields = {name: document.get(name) for name in ("time", "run_id", "step_id", "attempt")}
    return LogLine(id=entry_id.decode(), **fields, **line)


async def lines_of(history: History, run: Run, *, since: str | None, count: int) -> list[LogLine]:
    """The first lines after an id."""
    lines: list[LogLine] = []
    while len(lines) < count:
        events = await history.events_of(run, since=since, count=READ_AT_ONCE)
        found = (line_of(event.id.encode(), event.type, event.event) for event in events)
        lines += [line for line in found if line]
        if len(events) < READ_AT_ONCE:
            break
        since = events[-1].id
    return lines[:count]


def _run(event_type: str, data: JSON) -> JSON:
    return {"source": "run", "text": f"run {_ENDS[EventType(event_type)]}"}


def _run_failed(_: str, data: JSON) -> JSON:
    return {"source": "run", "level": "error", "text": f"run failed: {_detail(data.get('error'))}"}


def _interrupted(_: str, __: JSON) -> JSON:
    return {"source": "run", "level": "warning", "text": "run interrupted: its worker died or gave it back"}


def _step_failed(_: str, data: JSON) -> JSON:
    return {
        "source": "run",
        "level": "error",
        "text": f"step {_text(data.get('key'))} failed: {_detail(data.get('error'))}",
    }


def _asks(_: str, data: JSON) -> JSON:
    text = f"asking {_text(data.get('model'))}"
    if cause := _text(data.get("cause")):
        return {"source": "model", "level": "warning", "text": f"{text} again: {cause}"}
    return {"source": "model", "text": text}


def _call(_: str, data: JSON) -> JSON:
    arguments = data.get("arguments")
    shown = arguments if isinstance(arguments, str) else orjson.dumps(arguments).decode()
    return {"source": "tool", "text": f"{_text(data.get('name'))} {shown[:CALL_CHARS]}"}


def _output(_: str, data: JSON) -> JSON:
    return {"source": "tool", "stream": _text(data.get("stream")) or None, "text": _text(data.get("text"))}


def _response(_: str, data: JSON) -> JSON:
    if data.get("ok", True):
        return {"source": "tool", "text": f"{_text(data.get('name'))} done"}
    text = f"{_text(data.get('name'))} failed: {_text(data.get('content'))[:CALL_CHARS]}"
    return {"source": "tool", "level": "error", "text": text}


def _log(_: str, data: JSON) -> JSON:
    level = data.get("level")
    known = level if level in ("debug", "info", "warning", "error") else "info"
    return {"source": "log", "level": known, "text": _text(data.get("message"))}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else orjson.dumps(value).decode()


def _detail(error: Any) -> str:
    return _text(error.get("detail") if isinstance(error, dict) else error)


_TOLD: dict[str, Callable[[str, JSON], JSON]] = {
    **dict.fromkeys(_ENDS, _run),
    EventType.RUN_FAILED: _run_failed,
    EventType.RUN_INTERRUPTED: _interrupted,
    EventType.STEP_FAILED: _step_failed,
    EventType.AGENT_REQUEST: _asks,
    EventType.TOOL_REQUEST: _call,
    EventType.TOOL_OUTPUT: _output,
    EventType.TOOL_RESPONSE: _response,
    EventType.LOG: _log,
}
