"""Says at once that a file just written does not parse: cheaper than finding it out by running it."""

import shlex
from collections.abc import Sequence
from dataclasses import replace

from workflow.sandbox.base import Command, ExecStatus, Sandbox, SandboxLost, SandboxRefused
from workflow.tool.base import ToolContext, ToolResult, unwatched

CHECK_SECONDS = 2
CHECKED = (".py", ".json")
SHOWN_CHARS = 2_000

# Runs in the sandbox: a parser fed by a stranger may crash, and that is not to happen to the worker.
CHECKER = """
import ast, json, sys, warnings
warnings.simplefilter("ignore")
for path in sys.argv[1:]:
    try:
        content = open(path, "rb").read()
        ast.parse(content) if path.endswith(".py") else json.loads(content.decode("utf-8-sig"))
    except SyntaxError as error:
        print(f"{path}:{error.lineno}: {error.msg}")
    except ValueError as error:
        print(f"{path}: {error}")
"""


async def with_syntax_check(sandbox: Sandbox, ctx: ToolContext, result: ToolResult, paths: Sequence[str]) -> ToolResult:
    """The result of having written `paths`, with what is wrong in them as far as that can be checked."""
    errors = await _syntax_errors(sandbox, ctx, paths)
    if not errors:
        return result
    content = f"{result.content}\nThis does not parse, mend it:\n{errors}"
    return replace(result, content=content, data=result.data | {"syntax_errors": errors.split("\n")})


async def _syntax_errors(sandbox: Sandbox, ctx: ToolContext, paths: Sequence[str]) -> str:
    """A line for each file that does not parse. Empty: none, or no telling."""
    checked = [path for path in paths if path.endswith(CHECKED)]
    if not checked:
        return ""
    words = ["timeout", "-k1", str(CHECK_SECONDS), "python3", "-I", "-S", "-c", CHECKER, *checked]
    command = Command(
        key=f"{ctx.key}/syntax",
        epoch=ctx.epoch,
        command=shlex.join(words),
        timeout_seconds=2 * CHECK_SECONDS,
        output_chars=SHOWN_CHARS,
    )
    try:
        result = await sandbox.exec(command, unwatched)
    except (SandboxRefused, SandboxLost):  # the write itself is certain all the same
        return ""
    told = result.status is ExecStatus.EXITED and result.exit_code == 0
    return result.output.head.strip() if told else ""
