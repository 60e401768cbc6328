"""Lists a folder."""

import posixpath
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import ClassVar

from pydantic import Field

from workflow.sandbox.base import WORKSPACE, Entry, FileKind, FileMissing, NotRegular
from workflow.tool.base import Args, Effect, Tool, ToolContext, ToolResult
from workflow.tool.display import count_of, cut_middle, size_text
from workflow.tool.nearby import missing
from workflow.tool.paths import resolve

ENTRIES = 500
HIDDEN = ("node_modules", ".git", "__pycache__", ".venv")


class LsArgs(Args):
    path: str = Field(WORKSPACE, description="The folder: absolute, or relative to /workspace (default /workspace).")
    depth: int = Field(1, ge=1, le=3, description="How many levels of folders to show (default 1).")
    ignore: list[str] = Field(
        default_factory=list, max_length=50, description="Names to leave out, as globs such as *.pyc"
    )


class LsTool(Tool[LsArgs]):
    name: ClassVar[str] = "ls"
    effect: ClassVar[Effect] = Effect.REPEATABLE
    Args = LsArgs

    async def run(self, args: LsArgs, ctx: ToolContext) -> ToolResult:
        path = resolve(args.path)
        sandbox = await ctx.sandbox()
        try:
            listing = await sandbox.list(path, args.depth, [*HIDDEN, *args.ignore], ENTRIES)
        except FileMissing:
            return await missing(sandbox, path)
        except NotRegular:
            return ToolResult.error("not_a_directory", f"{path} is no folder. To see what it holds, call read_file.")
        entries = [entry for entry in in_order(listing.entries) if not _ignored(entry, args.ignore)]
        left_out = len(listing.entries) - len(entries)
        tree = _tree(path, entries, left_out, truncated=listing.truncated)
        return ToolResult(
            ok=True,
            content=cut_middle(tree, ctx.limits.output_chars, 0.6, "list a sub-folder to see them"),
            data={
                "path": path,
                "entries": [{"path": e.path, "kind": e.kind, "size": e.size} for e in entries],
                "ignored": left_out,
                "truncated": listing.truncated,
            },
        )


def _ignored(entry: Entry, patterns: Sequence[str]) -> bool:
    """The sandbox does not go into ignored folders, but it lists them, and files as well."""
    return any(fnmatchcase(posixpath.basename(entry.path), pattern) for pattern in patterns)


def _tree(path: str, entries: Sequence[Entry], left_out: int, *, truncated: bool) -> str:
    folders = sum(entry.kind is FileKind.DIRECTORY for entry in entries)
    lines = [f"{path} ({_counts(folders, len(entries) - folders)})" if entries else f"{path} is empty"]
    lines += [_line(entry) for entry in entries]
    if left_out:
        lines.append(f"({left_out} left out by ignore)")
    if truncated:
        lines.append(f"(There are more than {ENTRIES}: list a sub-folder, or leave some out with ignore.)")
    return "\n".join(lines)


def _counts(folders: int, files: int) -> str:
    return ", ".join(count_of(n, noun) for n, noun in ((folders, "folder"), (files, "file")) if n)


def in_order(entries: Iterable[Entry]) -> list[Entry]:
    """In each folder its sub-folders first, each followed by what is in it, then its files; by name."""
    held: dict[str, list[Entry]] = {}
    for entry in entries:
        held.setdefault(posixpath.dirname(entry.path), []).append(entry)
    ordered: list[Entry] = []

    def visit(folder: str) -> None:
        for entry in sorted(held.get(folder, ()), key=lambda e: (e.kind is not FileKind.DIRECTORY, e.path)):
            ordered.append(entry)
            if entry.kind is FileKind.DIRECTORY:
                visit(entry.path)

    visit("")
    return ordered


def _line(entry: Entry) -> str:
    indent = "  " * entry.path.count("/")
    name = posixpath.basename(entry.path)
    if entry.kind is FileKind.DIRECTORY:
        inside = f"  ({count_of(entry.children, 'item')}, not shown)" if entry.children else ""
        return f"{indent}{name}/{inside}"
    marks = {FileKind.SYMLINK: "  (symbolic link)", FileKind.OTHER: "  (pipe, socket or device)"}
    return f"{indent}{name}{marks.get(entry.kind) or '  ' + size_text(entry.size)}"
