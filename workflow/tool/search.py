"""Searches a sandbox by a program that runs in it (searcher.py), of which all that is asked is Python."""

import json
import posixpath
import shlex
from functools import cache
from importlib import resources
from typing import NamedTuple

from pydantic import BaseModel, ValidationError

from shared.types import JSON
from workflow.sandbox.base import WORKSPACE, Command, ExecStatus, Sandbox
from workflow.tool.base import ToolContext, ToolResult, unwatched
from workflow.tool.nearby import missing

SEARCH_SECONDS = 20
STOP_SECONDS = 10  # beyond which a search that its own clock did not end is ended from outside
TIMED_OUT = 124  # exit code of timeout(1)
NO_SUCH_PROGRAM = 127
NOTES_CHARS = 1_000  # kept free for what is said beside the findings
MAX_PATTERN_CHARS = 4_000
SKIPPED = ".git, node_modules, __pycache__ and .venv"
HINTS = {
    "bad_pattern": "To find a text as it is, put a backslash before each of { } ( ) [ ] . * + ? |",
    "bad_type": "Leave type out and give glob, such as *.py.",
}


class Row(NamedTuple):
    """A file, or a line of one. `number`: of the line, from 1; or how many lines of the file match."""

    path: str
    number: int | None
    text: str
    matches: bool


class Found(BaseModel):
    """A page of what was found below `folder`. `searched`: how many files, told only where nothing was found."""

    rows: list[Row] = []
    folder: str = WORKSPACE
    more: bool = False
    total: int | None = None
    searched: int | None = None
    engine: str = ""
    error: str | None = None
    text: str = ""
    """Of the error."""


async def search(sandbox: Sandbox, ctx: ToolContext, request: JSON) -> Found | ToolResult:
    """A page, or what the model is told instead. It is no effect: after a crash it is done again.

    Raises SandboxError.
    """
    path: str = request["path"]
    found = await _asked(sandbox, ctx, {**request, "chars": ctx.limits.output_chars - NOTES_CHARS})
    if isinstance(found, ToolResult) or found.error is None:
        return found
    if found.error == "missing":
        return await missing(sandbox, path)
    if found.error == "not_a_folder":
        return ToolResult.error("not_a_directory", f"{path} is no folder. To search in it, call grep.")
    return ToolResult.error(found.error, f"{found.text}\n{HINTS.get(found.error, '')}".strip())


def shown_path(folder: str, path: str) -> str:
    """As other tools take it, and in one line: relative to the workspace where it is in it."""
    absolute = posixpath.normpath(posixpath.join(folder, path))
    inside = absolute.removeprefix(f"{WORKSPACE}/")
    return inside if inside.isprintable() else json.dumps(inside, ensure_ascii=False)


async def _asked(sandbox: Sandbox, ctx: ToolContext, request: JSON) -> Found | ToolResult:
    words = ["timeout", "-k1", str(SEARCH_SECONDS), "python3", "-I", "-S", "-c", _program(), json.dumps(request)]
    command = Command(
        key=f"{ctx.key}/search:{ctx.epoch}",
        epoch=ctx.epoch,
        command=shlex.join(words),
        cwd=WORKSPACE,  # given, so that bash's does not change
        timeout_seconds=SEARCH_SECONDS + STOP_SECONDS,
        output_chars=4 * ctx.limits.output_chars,
    )
    result = await sandbox.exec(command, unwatched)
    if result.task_id and result.status is ExecStatus.RUNNING:
        await sandbox.kill_task(result.task_id, f"{command.key}/end", ctx.epoch)
    if result.status is ExecStatus.RUNNING or result.exit_code in (TIMED_OUT, 128 + 9):
        return ToolResult.error(
            "timeout", f"The search was ended after {SEARCH_SECONDS} s. Search a smaller folder, or fewer files (glob)."
        )
    if result.exit_code == NO_SUCH_PROGRAM:
        return ToolResult.error("unavailable", "This sandbox has no python3, which searching needs. Use bash instead.")
    try:
        return Found.model_validate_json(result.output.head + result.output.tail)
    except ValidationError:
        said = (result.output.head + result.output.tail)[-NOTES_CHARS:]
        return ToolResult.error("failed", f"The search failed. Use bash instead. It said:\n{said}")


@cache
def _program() -> str:
    return resources.files("workflow.tool").joinpath("searcher.py").read_text("utf-8")
