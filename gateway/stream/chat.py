"""A run's text as a chat client reads it (source design 002): `data: {...}` chunks, and `data: [DONE]` at its end.

    data: {"session_id": "s-17", "thread_id": "...", "run_id": "..."}     first
    data: {"content": "Hel"}                                              text, to be put behind what there is
    data: {"replace": "Hel"}                                              all text so far: a part of it is void
    data: {"waiting": {"step_id": "...", "request": ...}}                 a person is asked
    data: {"done": {"output": "Hello", "usage": {}, "cost": 0.001}}       or {"error": {"code": "...", "detail": "..."}}
    data: [DONE]

A stream that ends without [DONE] was cut: the run goes on, and GET /api/runs/{run_id}/events has all of it.
"""

import orjson

from gateway.stream.entries import Entry
from gateway.stream.sse import KEEP_ALIVE, EventStream
from gateway.stream.subscription import Notice, Subscription
from shared.types import JSON, TERMINAL_EVENTS, EventType

DONE = b"data: [DONE]\n\n"


class ChatStream(EventStream):
    """`hello`: the first chunk."""

    def __init__(self, subscription: Subscription, hello: JSON) -> None:
        super().__init__(subscription)
        self._hello = hello
        self._text = ChatText()

    def _first(self) -> bytes:
        return _chunk(self._hello)

    def _shown(self, found: list[Entry]) -> bytes:
        return b"".join(self._text.chunks(entry.type, orjson.loads(entry.event)) for entry in found)

    def _noticed(self, notice: Notice) -> bytes:
        if notice.event not in ("error", "gap"):
            return KEEP_ALIVE
        return _chunk({notice.event: {name: value for name, value in notice.data.items() if name != "type"}})


class ChatText:
    """The text of a run by its steps: a step's is void when the step is done again."""

    def __init__(self) -> None:
        self._steps: dict[int, str] = {}

    def chunks(self, kind: str, event: JSON) -> bytes:
        """What a chat client is sent for an event; nothing for most."""
        data = event["data"]
        match kind:
            case EventType.AGENT_DELTA:
                step = _number(event["step_id"])
                self._steps[step] = self._steps.get(step, "") + data["text"]
                return _chunk({"content": data["text"]})
            case EventType.RUN_RESUMED:
                return self._void(_number(data["from_step"]))
            case EventType.AGENT_REQUEST if data["try"] > 1:
                return self._void(_number(event["step_id"]))
            case EventType.STEP_WAITING_HUMAN:
                return _chunk({"waiting": {"step_id": event["step_id"], "request": data.get("request")}})
        return _chunk(_end(kind, data)) + DONE if kind in TERMINAL_EVENTS else b""

    def _void(self, from_step: int) -> bytes:
        void = [step for step in self._steps if step >= from_step]
        for step in void:
            del self._steps[step]
        return _chunk({"replace": "".join(self._steps[step] for step in sorted(self._steps))}) if void else b""


def _end(kind: str, data: JSON) -> JSON:
    if kind == EventType.RUN_COMPLETED:
        return {"done": data}
    return {"error": data.get("error") or {"code": "run_canceled", "detail": "The run was canceled."}}


def _number(step_id: str) -> int:
    return int(step_id.rpartition(".")[2])


def _chunk(data: JSON) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(data)
