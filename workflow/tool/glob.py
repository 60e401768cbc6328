"""Finds files by their names."""

from typing import ClassVar

from pydantic import Field

from workflow.sandbox.base import WORKSPACE
from workflow.tool.base import Args, Effect, Tool, ToolContext, ToolResult
from workflow.tool.display import count_of
from workflow.tool.paths import resolve
from workflow.tool.search import SKIPPED, search, shown_path


class GlobArgs(Args):
    pattern: str = Field(
        min_length=1, max_length=1_000, description='Such as "*.py" (at any depth), "src/**/*.{ts,tsx}", "docs/*.md".'
    )
    path: str = Field(WORKSPACE, description="The folder to look in (default /workspace).")
    limit: int = Field(100, ge=1, le=1_000, description="At most so many files (default 100).")


class GlobTool(Tool[GlobArgs]):
    name: ClassVar[str] = "glob"
    effect: ClassVar[Effect] = Effect.REPEATABLE
    Args = GlobArgs

    async def run(self, args: GlobArgs, ctx: ToolContext) -> ToolResult:
        if "\0" in args.pattern + args.path:
            return ToolResult.error("bad_pattern", "No file name has a NUL character. Remove it.")
        path = resolve(args.path)
        pattern = args.pattern.removeprefix(f"{path}/").removeprefix("./")
        request = {"op": "glob", "path": path, "pattern": pattern, "limit": args.limit, "offset": 0}
        found = await search(await ctx.sandbox(), ctx, request)
        if isinstance(found, ToolResult):
            return found
        files = [shown_path(path, row.path) for row in found.rows]
        total = found.total or 0
        data = {"pattern": args.pattern, "path": path, "files": files, "total": total, "more": found.more}
        if not files:
            content = f"No file in {path} has a name like {args.pattern!r} ({SKIPPED} left out)."
            return ToolResult(ok=True, content=content, data=data)
        of = f"{len(files):,} of " if found.more else ""
        narrow = "; narrow the pattern to see the others" if found.more else ""
        note = f"({of}{count_of(total, 'file')}, newest first{narrow})"
        return ToolResult(ok=True, content="\n".join([*files, note]), data=data)
