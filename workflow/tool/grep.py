"""Searches the content of files."""

from collections.abc import Iterator
from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from shared.types import JSON
from workflow.sandbox.base import WORKSPACE
from workflow.tool.base import Args, Effect, Tool, ToolContext, ToolResult
from workflow.tool.display import count_of, printable
from workflow.tool.paths import resolve
from workflow.tool.search import MAX_PATTERN_CHARS, SKIPPED, Found, Row, search, shown_path

HEAD_LIMIT = 250


class OutputMode(StrEnum):
    FILES = "files_with_matches"
    CONTENT = "content"
    COUNT = "count"


class GrepArgs(Args):
    pattern: str = Field(
        min_length=1, max_length=MAX_PATTERN_CHARS, description="A regular expression, as ripgrep has them."
    )
    path: str = Field(WORKSPACE, description="A folder, or one file (default /workspace).")
    glob: str | None = Field(
        None, max_length=1_000, description='Only files of such names: "*.py", "src/**/*.{ts,tsx}"'
    )
    type: str | None = Field(None, max_length=50, description='Only files of a kind: "py", "js", "rust", ...')
    output_mode: OutputMode = Field(
        OutputMode.FILES,
        description="files_with_matches (default; newest first), content (the lines), count (of lines in each file).",
    )
    context: int = Field(0, ge=0, le=50, description="Lines to show around each match, with content.")
    before: int | None = Field(None, ge=0, le=50, description="Lines before each match, instead of context.")
    after: int | None = Field(None, ge=0, le=50, description="Lines after each match, instead of context.")
    case_insensitive: bool = Field(False, description="Take upper and lower case as the same (default false).")
    multiline: bool = Field(
        False, description="Let a match go over several lines; the dot is then also a newline (default false)."
    )
    head_limit: int = Field(HEAD_LIMIT, ge=1, le=2_000, description="At most so many lines of result (default 250).")
    offset: int = Field(0, ge=0, description="Leave out so many lines of the result first (default 0).")


class GrepTool(Tool[GrepArgs]):
    name: ClassVar[str] = "grep"
    effect: ClassVar[Effect] = Effect.REPEATABLE
    Args = GrepArgs

    async def run(self, args: GrepArgs, ctx: ToolContext) -> ToolResult:
        if any("\0" in text for text in (args.pattern, args.glob or "", args.type or "", args.path)):
            return ToolResult.error("bad_pattern", "A NUL character cannot be searched for. Remove it.")
        path = resolve(args.path)
        found = await search(await ctx.sandbox(), ctx, _request(args, path))
        if isinstance(found, ToolResult):
            return found
        if not found.rows:
            return _nothing(args, path, found)
        files = dict.fromkeys(shown_path(found.folder, row.path) for row in found.rows)
        return ToolResult(
            ok=True,
            content="\n".join([*_lines(args, found), *_notes(args, found)]),
            data={
                "pattern": args.pattern,
                "path": path,
                "output_mode": args.output_mode,
                "files": list(files),
                "total": found.total,
                "more": found.more,
            },
        )


def _request(args: GrepArgs, path: str) -> JSON:
    return {
        "op": "grep",
        "path": path,
        "pattern": args.pattern,
        "glob": args.glob,
        "type": args.type,
        "mode": args.output_mode,
        "before": args.context if args.before is None else args.before,
        "after": args.context if args.after is None else args.after,
        "case_insensitive": args.case_insensitive,
        "multiline": args.multiline,
        "limit": args.head_limit,
        "offset": args.offset,
    }


def _nothing(args: GrepArgs, path: str, found: Found) -> ToolResult:
    data: JSON = {
        "pattern": args.pattern,
        "path": path,
        "output_mode": args.output_mode,
        "files": [],
        "total": found.total,
    }
    if args.offset:
        return ToolResult(ok=True, content=f"No more matches: there are fewer than {args.offset + 1}.", data=data)
    rule = ".gitignore respected" if found.engine == "rg" else f"{SKIPPED} left out"
    searched = f"{count_of(found.searched or 0, 'file')} searched; {rule}"
    return ToolResult(ok=True, content=f"No matches for {args.pattern!r} in {path} ({searched}).", data=data)


def _lines(args: GrepArgs, found: Found) -> Iterator[str]:
    last: Row | None = None
    grouped = args.context or args.before or args.after
    for row in found.rows:
        path = shown_path(found.folder, row.path)
        match args.output_mode:
            case OutputMode.FILES:
                yield path
            case OutputMode.COUNT:
                yield f"{path}: {row.number}"
            case OutputMode.CONTENT:
                if grouped and last and (last.path, (last.number or 0) + 1) != (row.path, row.number):
                    yield "--"
                mark = ":" if row.matches else "-"
                yield f"{path}{mark}{row.number or '?'}{mark}{printable(row.text)}"
        last = row


def _notes(args: GrepArgs, found: Found) -> Iterator[str]:
    shown = len(found.rows)
    if found.more or args.offset:
        of = f" of {found.total:,}" if found.total is not None and args.output_mode is OutputMode.FILES else ""
        more = f" Use offset={args.offset + shown} to continue." if found.more else ""
        yield f"(Showing {args.offset + 1:,}-{args.offset + shown:,}{of}.{more})"
    elif args.output_mode is OutputMode.FILES:
        yield f"({count_of(shown, 'file')})"
    elif args.output_mode is OutputMode.COUNT:
        yield f"({found.total:,} lines in {count_of(shown, 'file')})"
