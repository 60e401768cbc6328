"""Reads on in what a background task writes."""

from dataclasses import replace
from typing import ClassVar

from pydantic import Field

from shared.types import JSON
from workflow.sandbox.base import ExecStatus, Sandbox, SandboxRefused, TaskOutput
from workflow.tool.background import describe, status_of, unknown_task
from workflow.tool.base import UNLIMITED, Args, Effect, Tool, ToolContext, ToolResult
from workflow.tool.display import count_of, cut_middle, printable, short_lines
from workflow.tool.spill import save_output

HEAD_SHARE = 0.4  # of a cut output: the end of a log tells more than its beginning
MAX_PIECES = 200  # a task that writes faster than we read has no end
NOTES_CHARS = 1_000  # kept free for what is said beside the output


class BashOutputArgs(Args):
    task_id: str = Field(description='The task, such as "bg_1".')
    block: bool = Field(False, description="Wait for the task to end (default false).")
    timeout_ms: int = Field(
        30_000, ge=0, le=600_000, description="How long to wait with `block`, in milliseconds (default 30000)."
    )
    offset: int | None = Field(
        None, ge=0, description="Read from this byte of its output on. Default: from where the last call ended."
    )


class BashOutputTool(Tool[BashOutputArgs]):
    name: ClassVar[str] = "bash_output"
    effect: ClassVar[Effect] = Effect.REPEATABLE
    bounded: ClassVar[bool] = True
    timeout_seconds: ClassVar[float] = UNLIMITED
    Args = BashOutputArgs

    async def run(self, args: BashOutputArgs, ctx: ToolContext) -> ToolResult:
        sandbox = await ctx.sandbox()
        offset = ctx.memory.tasks.get(args.task_id, 0) if args.offset is None else args.offset
        wait = min(args.timeout_ms / 1000, ctx.limits.foreground_seconds) if args.block else 0
        try:
            output = await sandbox.task_output(args.task_id, offset, wait)
        except SandboxRefused:
            return await unknown_task(sandbox, args.task_id)
        output = await _rest(sandbox, output)
        ended = output.task.status is not ExecStatus.RUNNING
        memory: JSON = {"tasks": {args.task_id: output.next_offset}}
        return ToolResult(
            ok=True,
            content=await _content(sandbox, ctx, output),
            data={
                "task_id": args.task_id,
                "status": status_of(output.task),
                "exit_code": output.task.exit_code,
                "offset": offset,
                "next_offset": output.next_offset,
            },
            memory=memory | ({"ended": [args.task_id]} if ended else {}),
        )


async def _rest(sandbox: Sandbox, output: TaskOutput) -> TaskOutput:
    """All that there is now: a sandbox gives it in pieces."""
    texts = [output.text]
    skipped = output.skipped_bytes
    while output.text and len(texts) < MAX_PIECES:
        output = await sandbox.task_output(output.task.task_id, output.next_offset)
        texts.append(output.text)
        skipped += output.skipped_bytes
    return replace(output, text="".join(texts), skipped_bytes=skipped)


async def _content(sandbox: Sandbox, ctx: ToolContext, output: TaskOutput) -> str:
    text = short_lines(printable(output.text)).removesuffix("\n")
    room = max(ctx.limits.output_chars - NOTES_CHARS, 0)
    if len(text) > room:
        path = await save_output(sandbox, ctx, output.task.key, output.task.task_id)
        where = f"full output so far: {path}" if path else "it could not be kept in a file"
        text = cut_middle(text, room, HEAD_SHARE, where)
    if output.skipped_bytes:
        text = f"[{count_of(output.skipped_bytes, 'byte')} of this were dropped: the task writes too much]\n{text}"
    return "\n".join([text or "(no new output)", f"[{describe(output.task)}]"])
