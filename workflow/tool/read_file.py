"""Reads a page of a text file, with line numbers."""

from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field

from shared.types import JSON
from workflow.sandbox.base import FileData, FileKind, FileMissing, NotRegular, Sandbox
from workflow.tool.base import Args, Effect, Tool, ToolContext, ToolResult
from workflow.tool.content import Text, binary_kind, digest, lines_of, readable
from workflow.tool.display import count_of, short_line, size_text
from workflow.tool.memory import file_memory
from workflow.tool.nearby import missing
from workflow.tool.paths import resolve

PAGE_LINES = 2_000


class ReadArgs(Args):
    file_path: str = Field(description="The file: absolute, or relative to /workspace.")
    offset: int = Field(1, ge=1, description="The first line to read, from 1 (default 1).")
    limit: int = Field(PAGE_LINES, ge=1, le=PAGE_LINES, description="How many lines to read (default 2000).")


@dataclass(frozen=True, slots=True)
class Page:
    """Lines `first` to `last` (from 1) of a file's `total`, as the model reads them."""

    text: str
    first: int
    last: int
    total: int


class FileReadTool(Tool[ReadArgs]):
    name: ClassVar[str] = "read_file"
    effect: ClassVar[Effect] = Effect.REPEATABLE
    bounded: ClassVar[bool] = True
    Args = ReadArgs

    async def run(self, args: ReadArgs, ctx: ToolContext) -> ToolResult:
        path = resolve(args.file_path)
        file = await open_text_file(await ctx.sandbox(), path, ctx.limits.file_bytes)
        return file if isinstance(file, ToolResult) else _read(path, file, args, ctx)


async def open_text_file(sandbox: Sandbox, path: str, limit_bytes: int) -> FileData | ToolResult:
    """All of a text file, or what the model is told instead."""
    try:
        file = await sandbox.read(path, limit=limit_bytes)
    except FileMissing:
        return await missing(sandbox, path)
    except NotRegular as error:
        return _not_a_file(path, error.kind)
    return _not_text(path, file) or file


def _not_a_file(path: str, kind: FileKind) -> ToolResult:
    if kind is FileKind.DIRECTORY:
        return ToolResult.error("is_a_directory", f"{path} is a folder. To see what it holds, call ls.")
    return ToolResult.error("not_a_file", f"{path} is a pipe, a socket or a device: it cannot be read or edited.")


def _not_text(path: str, file: FileData) -> ToolResult | None:
    """The refusal of a file that is too large to be taken whole, or is no text."""
    size = size_text(file.info.size)
    if file.info.size > len(file.content):
        return ToolResult.error(
            "too_large",
            f"{path} has {size}, more than the {size_text(len(file.content))} that fit. Use bash to search it with "
            f"grep, or to print a part: sed -n '1,200p' {path}",
        )
    if kind := binary_kind(file.content):
        return ToolResult.error(
            "binary_file", f"{path} is no text ({kind}, {size}). Use bash with a program that understands it."
        )
    return None


def _read(path: str, file: FileData, args: ReadArgs, ctx: ToolContext) -> ToolResult:
    sha256 = file.sha256 or digest(file.content)
    text = Text.decode(file.content).text
    lines = lines_of(text)
    data: JSON = {"path": path, "size": file.info.size, "total_lines": len(lines), "sha256": sha256}
    if args.offset > max(len(lines), 1):
        return ToolResult.error(
            "past_the_end",
            f"{path} has {count_of(len(lines), 'line')}, so there is nothing at line {args.offset:,}.",
            data,
        )
    if not lines:
        return ToolResult(True, f"({path} is empty: 0 bytes)", data, memory=file_memory(path, sha256))
    page = page_of(lines, args.offset, args.limit, ctx.limits.read_chars)
    data |= {"first_line": page.first, "last_line": page.last}
    seen = ctx.memory.files.get(path)
    if seen and seen.sha256 == sha256 and seen.shows(page.first, page.last):
        # The file's next reading shows it again: a model that asks twice has lost sight of it.
        return ToolResult(
            True,
            f"({path} has not changed since you last read lines {page.first}-{page.last}: use what you got then.)",
            data | {"unchanged": True},
            memory=file_memory(path, sha256),
        )
    note = "\n(Bytes that are not UTF-8 are shown as \ufffd.)" if readable(text) != text else ""
    memory = file_memory(path, sha256, (page.first, page.last))
    return ToolResult(True, f"{page.text}\n{footer(page)}{note}", data, memory=memory)


def page_of(lines: list[str], first: int, limit: int, limit_chars: int) -> Page:
    """As many whole lines as fit; at least one. `first` must be within the lines."""
    shown: list[str] = []
    room = limit_chars
    for number in range(first, min(first + limit, len(lines) + 1)):
        line = f"{number:>6}→{short_line(readable(lines[number - 1]))}"
        room -= len(line) + 1
        if shown and room < 0:
            break
        shown.append(line)
    return Page("\n".join(shown), first, first + len(shown) - 1, len(lines))


def footer(page: Page) -> str:
    if page.last == page.total:
        return f"(End of file - {count_of(page.total, 'line')})"
    return f"(Showing lines {page.first}-{page.last} of {page.total}. Use offset={page.last + 1} to continue.)"
