"""Runs a shell command in the sandbox, and does not lose it when it takes long or the worker dies."""

from typing import ClassVar

from pydantic import Field

from shared.permissions import Subject
from shared.types import JSON
from workflow.sandbox.base import WORKSPACE, Command, ExecResult, ExecStatus, Sandbox, SandboxLost
from workflow.tool.base import UNLIMITED, Args, Effect, Tool, ToolContext, ToolResult, unwatched
from workflow.tool.commands import subjects_of_line
from workflow.tool.display import count_of, printable, short_lines, size_text
from workflow.tool.paths import resolve
from workflow.tool.shell import fault_of, hints_for
from workflow.tool.spill import file_name, save_output

NOTES_CHARS = 2_000  # kept free for what is said beside the output
DESCRIPTION_CHARS = 80
WATCHED_FILES = 100  # of those the model has read: hashed after each command

# Programs that would page, prompt or draw do none of it.
QUIET = {
    "PAGER": "cat",
    "GIT_PAGER": "cat",
    "GIT_TERMINAL_PROMPT": "0",
    "PIP_PROGRESS_BAR": "off",
    "PIP_NO_INPUT": "1",
    "TERM": "dumb",
    "NO_COLOR": "1",
    "CI": "1",
    "DEBIAN_FRONTEND": "noninteractive",
}


class BashArgs(Args):
    command: str = Field(description="The shell command, run by `bash -c`.")
    description: str | None = Field(
        None, description="What it does, in at most 80 characters, for the people watching."
    )
    timeout_ms: int = Field(
        120_000,
        ge=1_000,
        le=600_000,
        description="How long to wait for it, in milliseconds (default 120000). Then it goes on in the background.",
    )
    workdir: str | None = Field(None, description="Where to run this one command. Default: where the last one ended.")
    run_in_background: bool = Field(False, description="Do not wait for it: for servers and long jobs.")


class BashTool(Tool[BashArgs]):
    name: ClassVar[str] = "bash"
    effect: ClassVar[Effect] = Effect.NONE
    bounded: ClassVar[bool] = True
    timeout_seconds: ClassVar[float] = UNLIMITED
    Args = BashArgs

    def subjects(self, args: BashArgs) -> list[Subject]:
        return [] if fault_of(args.command) else subjects_of_line(args.command)

    async def run(self, args: BashArgs, ctx: ToolContext) -> ToolResult:
        if fault := fault_of(args.command):
            return ToolResult.error("invalid_command", fault)
        sandbox = await ctx.sandbox()
        result = await sandbox.exec(_command(args, ctx), _Watched(ctx))
        return await self._report(args, ctx, sandbox, result)

    async def recover(self, args: BashArgs, ctx: ToolContext) -> ToolResult | None:
        """The command went on while no worker listened: re-attach to it."""
        if fault_of(args.command):
            return None
        sandbox = await ctx.sandbox()
        if await sandbox.attach(ctx.key, ctx.epoch, _Watched(ctx)) is None:
            return None
        # The same key again begins nothing: it gives the result with this call's bounds.
        result = await sandbox.exec(_command(args, ctx), unwatched)
        return await self._report(args, ctx, sandbox, result)

    async def _report(self, args: BashArgs, ctx: ToolContext, sandbox: Sandbox, result: ExecResult) -> ToolResult:
        saved = await _saved_output(ctx, sandbox, result)
        stale, changed = await _changed_files(ctx, sandbox)
        lines = [_output_text(result, saved), _ending(result, args), *hints_for(result, sandbox.capabilities)]
        if stale:
            lines.append(f"[files you had read that have changed since: {', '.join(stale)}]")
        memory: JSON = {"changed": changed} if changed else {}
        if result.status is ExecStatus.RUNNING and result.task_id:
            memory["tasks"] = {result.task_id: 0}
        return ToolResult(
            ok=result.exit_code in (0, None) and result.status is not ExecStatus.KILLED,
            content="\n".join(line for line in lines if line),
            data=_data(args, result, saved),
            error_code=_error_code(result),
            memory=memory,
        )


def _command(args: BashArgs, ctx: ToolContext) -> Command:
    return Command(
        key=ctx.key,
        epoch=ctx.epoch,
        command=args.command,
        cwd=resolve(args.workdir) if args.workdir else None,
        timeout_seconds=min(args.timeout_ms / 1000, ctx.limits.foreground_seconds),
        background=args.run_in_background,
        env=QUIET,
        output_chars=max(ctx.limits.output_chars - NOTES_CHARS, 0),
    )


class _Watched:
    """Passes output on to those who watch, up to a bound: events are kept, and a runaway command has no end."""

    def __init__(self, ctx: ToolContext) -> None:
        self._output = ctx.output
        self._left = ctx.limits.streamed_chars

    async def __call__(self, stream: str, text: str) -> None:
        if self._left <= 0:
            return
        if len(text) > self._left:
            text = text[: self._left] + "\n[… more output is not shown live …]\n"
        self._left -= len(text)
        await self._output(stream, text)


async def _saved_output(ctx: ToolContext, sandbox: Sandbox, result: ExecResult) -> str | None:
    """Where the whole output is, when the model does not get it all."""
    if not result.output.truncated or result.status is ExecStatus.RUNNING:
        return None
    return await save_output(sandbox, ctx, ctx.key, file_name(ctx.call_id))


async def _changed_files(ctx: ToolContext, sandbox: Sandbox) -> tuple[list[str], dict[str, str | None]]:
    """Files that are no longer as the model knows them, and what it is told of them by this."""
    known = list(ctx.memory.files)[-WATCHED_FILES:]
    try:
        hashes = await sandbox.hashes(known) if known else {}
    except SandboxLost:  # the command's own result is certain all the same
        hashes = {}
    changed = {
        path: sha256
        for path, sha256 in hashes.items()
        if sha256 != ctx.memory.changed.get(path, ctx.memory.files[path].sha256)
    }
    stale = [path if changed[path] else f"{path} (gone)" for path in changed]
    return stale, changed


def _output_text(result: ExecResult, saved: str | None) -> str:
    output = result.output
    head, tail = (short_lines(printable(part)) for part in (output.head, output.tail))
    if not output.truncated:
        return head.removesuffix("\n") or ("(no output)" if result.status is not ExecStatus.RUNNING else "")
    where = f"full output: {saved}" if saved else "the rest is not kept"
    if result.task_id:
        where = f'bash_output with task_id "{result.task_id}" and offset 0 reads all of it'
    dropped = f" ({size_text(result.dropped_bytes)} of it dropped)" if result.dropped_bytes else ""
    note = f"[… {count_of(output.omitted_bytes, 'byte')} omitted{dropped}; {where}; cut at line {output.cut_line} …]"
    return "\n".join([head.removesuffix("\n"), note, tail.removeprefix("\n").removesuffix("\n")])


def _ending(result: ExecResult, args: BashArgs) -> str:
    seconds = f"{result.duration_ms / 1000:.1f} s"
    if result.status is ExecStatus.RUNNING:
        told = f'bash_output with task_id "{result.task_id}" reads on, bash_kill stops it.'
        if args.run_in_background:
            return f"[started in the background as {result.task_id}. {told}]"
        return f"[still running after {seconds}: moved to the background as {result.task_id}. {told}]"
    where = f", now in {result.cwd}" if result.cwd != WORKSPACE and not args.workdir else ""
    if result.status is ExecStatus.KILLED:
        return f"[killed: {result.killed_by or 'by a signal'}; exit code {result.exit_code}, {seconds}{where}]"
    return f"[exit code {result.exit_code}, {seconds}{where}]"


def _error_code(result: ExecResult) -> str | None:
    if result.status is ExecStatus.KILLED:
        return "command_killed"
    return "command_failed" if result.exit_code else None


def _data(args: BashArgs, result: ExecResult, saved: str | None) -> JSON:
    return {
        "command": args.command,
        "description": (args.description or "")[:DESCRIPTION_CHARS] or None,
        "status": result.status,
        "exit_code": result.exit_code,
        "killed_by": result.killed_by,
        "task_id": result.task_id,
        "cwd": result.cwd,
        "duration_ms": result.duration_ms,
        "truncated": result.output.truncated,
        "full_output_path": saved,
    }
