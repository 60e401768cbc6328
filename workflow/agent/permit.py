"""Whether a call of the model is made: the rules say so, or a human whom the run waits for without a worker.

What was decided once holds for its call: rules that change meanwhile change nothing of what has begun.
"""

from shared.errors import ErrorCode
from shared.permissions import Action, Permissions
from workflow.engine.step import Step, StepFailed
from workflow.llm.types import ToolCall
from workflow.tool.approval import meaning
from workflow.tool.base import ToolResult
from workflow.tool.registry import Call

DENIED = (
    "{name} was not called: the rule `{rule}` forbids this call. Do not try it in other words. Do the work another "
    "way, or tell the user what is missing."
)
REFUSED = "{name} was not called: a human was asked and refused. {words}"
NO_WORDS = "They gave no reason. Do the work another way, or ask what they would rather have."
NO_ANSWER = "{name} was not called: a human was asked, and did not answer in time. Go on without it."


def permit_name(key: str) -> str:
    """Of the question whether the call may be made."""
    return f"permit:{key}"


class Gate:
    """Of one attempt. `ask_seconds`: how long a human has to answer (None: no limit)."""

    def __init__(self, step: Step, permissions: Permissions, *, ask_seconds: float | None) -> None:
        self._step = step
        self._permissions = permissions
        self._ask_seconds = ask_seconds

    async def refusal(self, call: ToolCall, parsed: Call | str, *, key: str, begun: bool) -> ToolResult | None:
        """What the model reads instead of a result; None: the call may be made. `key` names it within its run."""
        name = permit_name(key)
        asked = self._step.journal.known(f"approve:{name}") is not None
        if not asked and (begun or isinstance(parsed, str)):
            return None
        rule = None
        if not begun and not isinstance(parsed, str) and self._permissions.concern(call.name):
            rule = self._permissions.rule(call.name, parsed.tool.subjects(parsed.args))
        if asked or (rule and rule.action is Action.ASK):
            refusal = await self._asked(call, name)
            if refusal is not None:
                return refusal
        if rule and rule.action is Action.DENY:
            return ToolResult.error("denied", DENIED.format(name=call.name, rule=rule))
        return None

    async def _asked(self, call: ToolCall, name: str) -> ToolResult | None:
        # Not of the rule: another one may ask the same when the run is replayed.
        request = {"tool_call_id": call.id, "name": call.name, "arguments": call.arguments}
        try:
            answer = await self._step.approve(request, name=name, timeout=self._ask_seconds)
        except StepFailed as failed:
            if failed.code is not ErrorCode.WAIT_TIMEOUT:
                raise
            return ToolResult.error("not_approved", NO_ANSWER.format(name=call.name))
        approved, comment = meaning(answer)
        if approved:
            return None
        words = f"They say: {comment}" if comment else NO_WORDS
        return ToolResult.error("not_approved", REFUSED.format(name=call.name, words=words))
