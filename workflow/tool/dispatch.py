"""One tool call from a model's words to a result: the only way the agent's loop runs tools.

Whatever a tool does, the model gets an answer of bounded length in bounded time. What the model cannot mend (a sandbox
or a service of ours that is away) is raised.
"""

import json
import logging
import secrets
from collections.abc import Awaitable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from redis.exceptions import RedisError

from shared.errors import AppError, ErrorCode
from shared.tasks import TimeLimit
from shared.types import JSON
from workflow.sandbox.base import ExecStatus, Sandbox, SandboxError, SandboxLost, SandboxRefused
from workflow.tool.background import describe, short_command
from workflow.tool.base import CUT_OFF, UNLIMITED, Effect, OutcomeUnknown, ToolContext, ToolResult
from workflow.tool.display import cut_middle
from workflow.tool.registry import Call
from workflow.tool.spill import save_text
from workflow.tool.untrusted import fenced

HEAD_SHARE = 0.6
CALL_AGAIN = "{name} was cut off: the sandbox ended, and its processes with it. Call it again."
TOO_LONG = "{name} took longer than its {seconds:g} s and was stopped."
CRASHED = "{name} failed unexpectedly (incident {incident}, in the worker's log): the tool is at fault, not your call."
NOBODY_TO_ASK = "This call was under way when its worker ended, and what became of it cannot be found out: {why}"
NOT_KNOWN = " Whether it took effect, fully or in part, is not known: look before you repeat it."
OUR_TROUBLE = (ErrorCode.UNAVAILABLE, ErrorCode.INTERNAL)

R = TypeVar("R")

log = logging.getLogger("trunkline.tool")


def is_repeatable(call: Call | str) -> bool:
    """Whether the call may run beside others, and again after a crash."""
    return isinstance(call, str) or call.tool.effect is Effect.REPEATABLE


async def run_call(call: Call | str, ctx: ToolContext) -> ToolResult:
    """Does what `Registry.parse` gave. Raises OutcomeUnknown, SandboxUnavailable, SandboxFenced, Fenced."""
    if isinstance(call, str):
        return ToolResult.error("invalid_arguments", call)
    used = _UsedSandbox(ctx)
    try:
        done = await _guarded(call, ctx, call.tool.run(call.args, replace(ctx, sandbox=used.get)))
        result = await _fitted(call, done, ctx, used)
    except SandboxRefused as refused:
        result = ToolResult.error("refused", refused.detail)
    except SandboxLost as lost:
        if not is_repeatable(call):
            raise OutcomeUnknown(CUT_OFF.format(name=call.tool.name)) from lost
        result = ToolResult.error("sandbox_lost", CALL_AGAIN.format(name=call.tool.name))
    return await used.with_news(result)


async def recover_call(call: Call | str, ctx: ToolContext) -> ToolResult | None:
    """For a call in flight at a crash: its result, or None when it is to be run. Raises as `run_call`."""
    if isinstance(call, str):  # it was one that could be made when it began
        raise OutcomeUnknown(NOBODY_TO_ASK.format(why=call) + NOT_KNOWN)
    used = _UsedSandbox(ctx)
    try:
        done = await _guarded(call, ctx, call.tool.recover(call.args, replace(ctx, sandbox=used.get)))
        result = done and await _fitted(call, done, ctx, used)
    except SandboxRefused as refused:
        result = ToolResult.error("refused", refused.detail)
    except SandboxLost as lost:
        raise OutcomeUnknown(CUT_OFF.format(name=call.tool.name)) from lost
    return result and await used.with_news(result)


async def _guarded(call: Call, ctx: ToolContext, work: Awaitable[R]) -> R | ToolResult:
    """What a tool gives, or what is said of it when it takes too long or fails in a way that nobody thought of."""
    seconds = call.tool.timeout_seconds or ctx.limits.tool_seconds
    try:
        async with TimeLimit(None if seconds == UNLIMITED else seconds) as clock:
            return await work
    except (SandboxError, OutcomeUnknown, RedisError):
        raise
    except AppError as error:
        if error.code in OUR_TROUBLE:
            raise
        return ToolResult.error(error.code, error.detail)
    except Exception as error:
        if isinstance(error, TimeoutError) and clock.expired():
            return _stopped(call, "tool_timeout", TOO_LONG.format(name=call.tool.name, seconds=seconds))
        incident = secrets.token_hex(4)
        log.exception("tool %s of run %s failed (incident %s)", call.tool.name, ctx.run_id, incident)
        return _stopped(call, "tool_crashed", CRASHED.format(name=call.tool.name, incident=incident))


def _stopped(call: Call, code: str, text: str) -> ToolResult:
    """For a call that ended in the middle. Raises OutcomeUnknown where a human is to find out what became of it."""
    if is_repeatable(call):
        return ToolResult.error(code, text)
    if call.tool.asks_when_unknown:
        raise OutcomeUnknown(text + NOT_KNOWN)
    return ToolResult.error(code, text + NOT_KNOWN)


async def _fitted(call: Call, result: ToolResult, ctx: ToolContext, used: "_UsedSandbox") -> ToolResult:
    """As the model may read it: cut to its limit, with all of it in a file, and fenced where others wrote it."""
    content = result.content
    if not call.tool.bounded and len(content) > ctx.limits.output_chars:
        content = cut_middle(content, ctx.limits.output_chars, HEAD_SHARE, await used.keep(content))
    if call.tool.untrusted:
        content = fenced(content, call.tool.name)
    return result if content is result.content else replace(result, content=content)


@dataclass(slots=True)
class _UsedSandbox:
    """Notices which sandbox a call used, to tell the model what it should know of it."""

    ctx: ToolContext
    sandbox: Sandbox | None = field(default=None, init=False)

    async def get(self) -> Sandbox:
        self.sandbox = await self.ctx.sandbox()
        return self.sandbox

    async def keep(self, text: str) -> str:
        """Writes a long result into a file, where there is a sandbox. Says where all of it is."""
        if self.sandbox is None and self.ctx.has_sandbox():
            self.sandbox = await self.ctx.sandbox()
        path = self.sandbox and await save_text(self.sandbox, self.ctx, text)
        return f"full result: {path}" if path else "the rest is not kept; ask for less at a time"

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
