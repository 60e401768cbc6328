"""A step as it is seen from outside: with what it was given, and what it follows.

Little of that is written down with the step. A model's turn has read the thread's conversation; a tool's call stands in
the answer of the model that asked for it; a wait says itself what it waits for.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from shared.payloads.blobs import Ref
from shared.payloads.payloads import Payloads
from shared.threads.steps import StepRecord, Wait, tool_step
from shared.threads.types import Run
from shared.types import JSON, WaitKind


@dataclass(frozen=True, slots=True)
class SeenStep:
    run: Run
    record: StepRecord
    input: Any = None
    input_ref: Ref | None = None
    """Where the input is, if it is large; of a tool's call the model's answer that has it."""

    @property
    def parents(self) -> list[str]:
        """The ids of the steps that it follows; in a run that was called, of the one that called, where none in the run
        is known."""
        known = [f"{self.run.id}.{number}" for number in self.record.parents]
        if not known and self.run.parent and self.run.parent_step is not None:
            return [f"{self.run.parent.partition(' ')[0]}.{self.run.parent_step}"]
        return known

    async def whole(self, payloads: Payloads) -> Any:
        """The input, however large. Raises AppError RESULT_LOST, UNAVAILABLE."""
        if self.input_ref is None:
            return self.input
        found = await payloads.value(None, self.input_ref)
        return _call_in(found, self.record.key) if self.record.kind == "tool" else found


def asker_of(step: StepRecord) -> int | None:
    """The number of the model's turn that asked for it, where its input stands."""
    return step.parents[0] if step.kind == "tool" and step.parents else None


def seen(run: Run, step: StepRecord, asker: StepRecord | None) -> SeenStep:
    """`asker`: the step of that number."""
    found = SeenStep(run, step, step.input, step.input_ref)
    if asker is not None and asker.payload is not None:
        return replace(found, input_ref=asker.payload)
    if asker is not None:
        return replace(found, input=_call_in(asker.result, step.key))
    if step.wait is not None and (of_wait := OF_WAITS.get(step.wait.kind)):
        return replace(found, input=of_wait(step.wait), input_ref=step.wait.request_ref)
    if step.kind == "emit" and step.input is None:  # its data is its output too, where that is large
        return replace(found, input=step.result, input_ref=step.payload)
    if step.kind in ("llm", "compact") and step.messages:
        return replace(found, input={"messages": step.place})
    return found


def _call_in(answer: Any, key: str) -> JSON | None:
    """Of a model's answer the call that the step of this key makes, as `tool.request` tells it."""
    calls = answer.get("tool_calls", ()) if isinstance(answer, dict) else ()
    for call in calls:
        if tool_step(call["id"]) == key:
            return {"tool_call_id": call["id"], "name": call["name"], "arguments": call["arguments"]}
    return None


def _event(wait: Wait) -> JSON:
    keys = [place.removeprefix("k:") for _, _, place, _ in wait.topics if place.startswith("k:")]
    return {"name": wait.name, "key": next(filter(None, keys), None)}


OF_WAITS: Mapping[WaitKind, Callable[[Wait], Any]] = {
    WaitKind.HUMAN: lambda wait: wait.request,
    WaitKind.CHILD: lambda wait: wait.request,
    WaitKind.EVENT: _event,
    WaitKind.TIMER: lambda wait: {"until": wait.shown()["until"]},
}
"""What a wait was given. Not that for a step's outcome: it waits because of what the step was given before."""
