"""Writes whole files: all of them, or none."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field

from shared.types import JSON
from workflow.sandbox.base import FileChanged, FileError, FileWrite, Sandbox
from workflow.tool.base import Args, Effect, Tool, ToolContext, ToolResult
from workflow.tool.content import Text, digest, lines_of, readable
from workflow.tool.display import count_of, size_text
from workflow.tool.paths import resolve
from workflow.tool.placeholder import find_placeholder
from workflow.tool.syntax import with_syntax_check

TOTAL_BYTES = 5 * 1024 * 1024
FILES = 100
EMPTY = digest(b"")


class NewFile(Args):
    file_path: str = Field(description="The file: absolute, or relative to /workspace.")
    content: str = Field(description="All of its text.")
    executable: bool | None = Field(None, description="Whether it may be run as a program. Default: as it was.")


class WriteArgs(Args):
    files: list[NewFile] = Field(min_length=1, max_length=FILES, description="The files to write.")


@dataclass(frozen=True, slots=True)
class Planned:
    """A file to be written. `before`: the hash of what is there, None for nothing."""

    path: str
    content: bytes
    executable: bool | None
    before: str | None

    @property
    def action(self) -> str:
        if self.before is None:
            return "created"
        return "unchanged" if self.before == digest(self.content) else "updated"

    def as_write(self) -> FileWrite:
        return FileWrite(self.path, self.content, self.executable, self.before or "absent")


class FilesCreationTool(Tool[WriteArgs]):
    name: ClassVar[str] = "write_files"
    effect: ClassVar[Effect] = Effect.IDEMPOTENT
    Args = WriteArgs

    async def run(self, args: WriteArgs, ctx: ToolContext) -> ToolResult:
        paths = [resolve(file.file_path) for file in args.files]
        contents = [file.content.encode() for file in args.files]
        sandbox = await ctx.sandbox()
        hashes = await sandbox.hashes(paths)
        files = [
            Planned(path, content, file.executable, hashes[path])
            for file, path, content in zip(args.files, paths, contents, strict=True)
        ]
        if faults := [*_total_faults(files), *await _faults(sandbox, ctx, files)]:
            return _refused(faults)
        result = _written(files)
        try:
            written = await sandbox.write([f.as_write() for f in files], ctx.key, ctx.epoch, result.encode())
        except FileChanged as error:
            return _refused([f"{error.path} was written by somebody else just now. Read it again."])
        except FileError as error:
            return _refused([error.detail])
        return await with_syntax_check(sandbox, ctx, ToolResult.decode(written.note), paths)

    async def recover(self, args: WriteArgs, ctx: ToolContext) -> ToolResult | None:
        """The files are known by the call's key, and its result was written down with them."""
        sandbox = await ctx.sandbox()
        note = await sandbox.recall(ctx.key, ctx.epoch)
        if note is None:
            return None
        paths = [resolve(file.file_path) for file in args.files]
        return await with_syntax_check(sandbox, ctx, ToolResult.decode(note), paths)


def _total_faults(files: Sequence[Planned]) -> list[str]:
    faults = []
    size = sum(len(file.content) for file in files)
    if size > TOTAL_BYTES:
        faults.append(f"together they have {size_text(size)}, more than {size_text(TOTAL_BYTES)}. Write fewer at once.")
    paths = [file.path for file in files]
    twice = sorted({path for path in paths if paths.count(path) > 1})
    return [*faults, *(f"{path} is given twice. Give it once, with all of its text." for path in twice)]


async def _faults(sandbox: Sandbox, ctx: ToolContext, files: Sequence[Planned]) -> list[str]:
    """What is wrong with single files."""
    faults = []
    for file in files:
        if fault := _unseen_fault(file, ctx) or await _placeholder_fault(sandbox, file):
            faults.append(f"{file.path} {fault}")
    return faults


def _unseen_fault(file: Planned, ctx: ToolContext) -> str | None:
    """A file is not replaced by somebody who does not know what is in it."""
    if file.before in (None, EMPTY) or file.action == "unchanged":
        return None
    seen = ctx.memory.files.get(file.path)
    if seen is None:
        return "exists, and you have not read it. Read it first, or choose another name."
    if seen.sha256 != file.before:
        return "has changed since you last saw it (a command or somebody else wrote it). Read it again first."
    return None


async def _placeholder_fault(sandbox: Sandbox, file: Planned) -> str | None:
    text = file.content.decode()
    found = find_placeholder(text)
    if found and file.before:
        found = find_placeholder(text, readable(Text.decode((await sandbox.read(file.path)).content).text))
    if not found:
        return None
    number, line = found
    return (
        f"line {number} stands for left-out code: {line!r}. Write the file in full, or change a part of it with "
        "edit_file. (If it is meant as it is, write it with bash.)"
    )


def _refused(faults: Sequence[str]) -> ToolResult:
    return ToolResult.error("refused", "\n".join(["Nothing was written:", *(f"- {fault}" for fault in faults)]))


def _written(files: Sequence[Planned]) -> ToolResult:
    entries: list[JSON] = [
        {
            "path": file.path,
            "action": file.action,
            "size": len(file.content),
            "lines": len(lines_of(file.content.decode())),
            "sha256": digest(file.content),
        }
        for file in files
    ]
    lines = [f"- {e['path']}: {e['action']}, {count_of(e['lines'], 'line')}, {size_text(e['size'])}" for e in entries]
    return ToolResult(
        ok=True,
        content="\n".join([f"Wrote {count_of(len(files), 'file')}:", *lines]),
        data={"files": entries},
        events=[("file", entry) for entry in entries if entry["action"] != "unchanged"],
        memory={"files": {entry["path"]: {"sha256": entry["sha256"]} for entry in entries}},
    )
