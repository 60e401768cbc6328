"""One tool call from a model's words to a result: the only way the agent's loop runs tools."""

import json
from dataclasses import dataclass, field, replace

from shared.types import JSON
from workflow.sandbox.base import ExecStatus, Sandbox, SandboxLost, SandboxRefused
from workflow.tool.background import describe, short_command
from workflow.tool.base import Effect, OutcomeUnknown, ToolContext, ToolResult
from workflow.tool.registry import Call

CUT_OFF = (
    "{name} was cut off: the sandbox ended and its processes with it. Whether it took effect, fully or in part, is "
    "not known. Look at the state of things (ls, read_file) before you repeat it."
)
CALL_AGAIN = "{name} was cut off: the sandbox ended, and its processes with it. Call it again."


def is_repeatable(call: Call | str) -> bool:
    """Whether the call may run beside others, and again after a crash."""
    return isinstance(call, str) or call.tool.effect is Effect.REPEATABLE


async def run_call(call: Call | str, ctx: ToolContext) -> ToolResult:
    """Does what `Registry.parse` gave. Raises OutcomeUnknown, SandboxUnavailable, SandboxFenced."""
    if isinstance(call, str):
        return ToolResult.error("invalid_arguments", call)
    used = _UsedSandbox(ctx)
    try:
        result = await call.tool.run(call.args, replace(ctx, sandbox=used.get))
    except SandboxRefused as refused:
        result = ToolResult.error("refused", refused.detail)
    except SandboxLost as lost:
        if not is_repeatable(call):
            raise OutcomeUnknown(CUT_OFF.format(name=call.tool.name)) from lost
        result = ToolResult.error("sandbox_lost", CALL_AGAIN.format(name=call.tool.name))
    return await used.with_news(result)


async def recover_call(call: Call | str, ctx: ToolContext) -> ToolResult | None:
    """For a call in flight at a crash: its result, or None when it is to be run. Raises as `run_call`."""
    if isinstance(call, str):
        return None
    used = _UsedSandbox(ctx)
    try:
        result = await call.tool.recover(call.args, replace(ctx, sandbox=used.get))
    except SandboxRefused as refused:
        result = ToolResult.error("refused", refused.detail)
    except SandboxLost as lost:
        raise OutcomeUnknown(CUT_OFF.format(name=call.tool.name)) from lost
    return result and await used.with_news(result)


@dataclass(slots=True)
class _UsedSandbox:
    """Notices which sandbox a call used, to tell the model what it should know of it."""

    ctx: ToolContext
    sandbox: Sandbox | None = field(default=None, init=False)

    async def get(self) -> Sandbox:
        self.sandbox = await self.ctx.sandbox()
        return self.sandbox

    async def with_news(self, result: ToolResult) -> ToolResult:
        if self.sandbox is None:
            return result
        try:
            news, memory = await self._news(self.sandbox, set(result.memory.get("ended", ())))
        except SandboxLost:  # the next call will meet it too, and say so
            return result
        if not news:
            return result
        return replace(result, content="\n".join([result.content, *news]), memory=result.memory | memory)

    async def _news(self, sandbox: Sandbox, told: set[str]) -> tuple[list[str], JSON]:
        news: list[str] = []
        memory: JSON = {}
        occasion = json.dumps([sandbox.notice, sandbox.ref], sort_keys=True)  # the same may happen to it again
        if sandbox.notice and occasion not in self.ctx.memory.notices:
            news.append(f"[{sandbox.notice}]")
            memory["notices"] = [occasion]
        if running := self.ctx.memory.running() - told:
            tasks = [task for task in await sandbox.tasks() if task.task_id in running]
            ended = [task for task in tasks if task.status is not ExecStatus.RUNNING]
            news += [f"[background task {describe(task)}: {short_command(task)}]" for task in ended]
            memory["ended"] = [*told, *(task.task_id for task in ended)]
        return news, memory
