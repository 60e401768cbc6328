"""Calls whose work is a run of its own: the agent waits for it without a worker, and reads how it ended."""

from collections.abc import Sequence, Set
from typing import Any

from shared.errors import AppError, ErrorCode
from shared.ids import child_run_id
from shared.threads.types import Run
from shared.types import JSON, EventType
from workflow.agent.shares import Left
from workflow.engine.children import CAPPED
from workflow.engine.step import Step, StepFailed
from workflow.llm.types import ToolCall
from workflow.tool.base import ChildEnd, ChildRun
from workflow.tool.registry import Registry

INHERITED = ("model", "temperature", "tools", "permissions", "allowed_hosts")
"""Those that a child has where it is given none."""
OF_RULES = ("permissions", "allowed_hosts")
"""Likewise, of an agent of the catalogue, which has a model and tools of its own."""
VALUES = (
    *(ErrorCode.CALL_TOO_DEEP, ErrorCode.INVALID_REQUEST, ErrorCode.BUDGET_EXHAUSTED),
    *(ErrorCode.NOT_FOUND, ErrorCode.CONFLICT, ErrorCode.NOT_IMPLEMENTED),
)
NONE_LEFT = (
    "It was not started: this run has started as many agents as it may (max_delegates), those counted that they "
    "started. Do the work yourself, or say what is missing."
)


async def run_child(
    step: Step, call: ToolCall, child: ChildRun, *, name: str, tools: Registry, models: Set[str], share: Left | None
) -> ChildEnd:
    """Its output, or why there is none. `name` names the call within its run; `tools` are the parent's.

    `models`: those that it may ask for. `share`: of what its parent has left (None: of delegates, none).
    """
    request = {"tool_call_id": call.id, "name": call.name, "arguments": call.arguments}
    run_id = child_run_id(step.run.id, f"call:{name}")
    try:
        if step.journal.known(f"call:{name}") is None:
            if share is None:
                raise AppError(ErrorCode.BUDGET_EXHAUSTED, NONE_LEFT)
            tools.only(child.parameters.get("tools", ()))
            _check_model(child.parameters.get("model"), models)
        asked = child.parameters.get("tools")
        output = await step.call(
            f"agent:{child.agent}" if child.agent else "agent",
            child.task,
            name=name,
            share_sandbox=child.share_sandbox,
            parameters=narrowed(step.run, child.parameters, share, OF_RULES if child.agent else INHERITED),
            only_tools=tools.names if asked is None else asked,
            started=[(EventType.TOOL_REQUEST, request)],
        )
    except AppError as error:
        if not isinstance(error, StepFailed) and error.code not in VALUES:
            raise
        failure = {"code": error.code, "detail": error.detail}
        return ChildEnd(run_id, error=failure, usage=await step.waits.usage_of(run_id))
    return ChildEnd(run_id, output, usage=await step.waits.usage_of(run_id))


def _check_model(name: str | None, models: Set[str]) -> None:
    if name is not None and name not in models:
        raise AppError(
            ErrorCode.INVALID_REQUEST,
            f"Its model may not be {name[:100]}. The models are: {', '.join(sorted(models))}.",
        )


def narrowed(parent: Run, asked: JSON, share: Left | None, inherited: Sequence[str] = INHERITED) -> JSON:
    """A child's parameters: no more than its parent has, and than its share. Without one it was born before."""
    own = parent.options | (share.parameters() if share else {})
    parameters: dict[str, Any] = {name: own[name] for name in inherited if name in own} | asked
    for name in CAPPED:
        if limits := [each[name] for each in (own, asked) if each.get(name) is not None]:
            parameters[name] = min(limits)
    return parameters
