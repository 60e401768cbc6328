"""Makes several edits in several files: all of them, or none."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from pydantic import Field

from shared.types import JSON
from workflow.sandbox.base import FileChanged, FileError, FileWrite, Sandbox
from workflow.tool.base import Args, Effect, Tool, ToolContext, ToolResult
from workflow.tool.content import Text, digest, readable
from workflow.tool.diff import Diff, diff_of
from workflow.tool.display import count_of, cut_middle
from workflow.tool.editing import STALE, Edit, EditArgs, Refusal, View, described, plan_edit
from workflow.tool.paths import resolve
from workflow.tool.read_file import open_text_file
from workflow.tool.syntax import with_syntax_check

EDITS = 50
NOTES_CHARS = 2_000  # kept free for what is said beside the diffs
NOT_TRIED = "not tried, as it comes after the other in the same file"


class MultiEditArgs(Args):
    edits: list[EditArgs] = Field(
        min_length=1, max_length=EDITS, description="The edits. Those of one file are made one after the other."
    )


@dataclass(slots=True)
class Draft:
    """A file as it will be. `before`: the hash of what is there; `faulty`: an edit of it could not be made."""

    path: str
    before: str
    text: Text
    view: View
    diffs: list[Diff] = field(default_factory=list)
    faulty: bool = False

    def make(self, args: EditArgs) -> Edit | str:
        """Makes the edit here, in memory; a text tells why it cannot be made."""
        if self.faulty:
            return NOT_TRIED
        edit = plan_edit(self.text, args)
        if isinstance(edit, Refusal):
            self.faulty = True
            return edit.text + (f"\n{STALE} Read it again." if self.view.stale else "")
        self.diffs.append(diff_of(self.text.text, edit.spans))
        self.text = self.text.with_text(edit.text_after())
        return edit

    def as_write(self) -> FileWrite:
        return FileWrite(self.path, self.text.encode(), expect=self.before)


@dataclass(frozen=True, slots=True)
class Made:
    """An edit that could be made in memory."""

    path: str
    edit: Edit
    diff: Diff


@dataclass(frozen=True, slots=True)
class Fault:
    path: str
    text: str


class MultiEditTool(Tool[MultiEditArgs]):
    name: ClassVar[str] = "multi_edit"
    effect: ClassVar[Effect] = Effect.IDEMPOTENT
    Args = MultiEditArgs

    async def run(self, args: MultiEditArgs, ctx: ToolContext) -> ToolResult:
        sandbox = await ctx.sandbox()
        drafts: dict[str, Draft | str] = {}
        for path in dict.fromkeys(resolve(edit.file_path) for edit in args.edits):
            drafts[path] = await _opened(sandbox, path, ctx)
        tried = [_made(drafts, edit) for edit in args.edits]
        made = [each for each in tried if isinstance(each, Made)]
        if len(made) < len(tried):
            return _refused(tried, ctx.limits.output_chars)
        files = [draft for draft in drafts.values() if isinstance(draft, Draft)]
        result = _edited(made, files, ctx.limits.output_chars)
        try:
            written = await sandbox.write([f.as_write() for f in files], ctx.key, ctx.epoch, result.encode())
        except FileChanged as error:
            text = f"Nothing was changed: {error.path} was written by somebody else just now. Read it again."
            return ToolResult.error("changed_meanwhile", text)
        except FileError as error:
            return ToolResult.error("refused", f"Nothing was changed: {error.detail}")
        return await with_syntax_check(sandbox, ctx, ToolResult.decode(written.note), list(drafts))

    async def recover(self, args: MultiEditArgs, ctx: ToolContext) -> ToolResult | None:
        """The files are known by the call's key, and its result was written down with them."""
        sandbox = await ctx.sandbox()
        note = await sandbox.recall(ctx.key, ctx.epoch)
        if note is None:
            return None
        paths = list(dict.fromkeys(resolve(edit.file_path) for edit in args.edits))
        return await with_syntax_check(sandbox, ctx, ToolResult.decode(note), paths)


async def _opened(sandbox: Sandbox, path: str, ctx: ToolContext) -> Draft | str:
    file = await open_text_file(sandbox, path, ctx.limits.file_bytes)
    if isinstance(file, ToolResult):
        return file.content
    sha256 = digest(file.content)
    return Draft(path, sha256, Text.decode(file.content), View.of(ctx.memory, path, sha256))


def _made(drafts: Mapping[str, Draft | str], args: EditArgs) -> Made | Fault:
    path = resolve(args.file_path)
    draft = drafts[path]
    edit = draft if isinstance(draft, str) else draft.make(args)
    if isinstance(draft, str) or isinstance(edit, str):
        return Fault(path, str(edit))
    return Made(path, edit, draft.diffs[-1])


def _refused(tried: Sequence[Made | Fault], limit_chars: int) -> ToolResult:
    faults = sum(isinstance(each, Fault) for each in tried)
    lines = [f"Nothing was changed: {faults} of {count_of(len(tried), 'edit')} cannot be made."]
    for number, each in enumerate(tried, 1):
        lines.append(f"- edit {number}/{len(tried)} ({each.path}): {each.text if isinstance(each, Fault) else 'fits'}")
    told = cut_middle("\n".join(lines), limit_chars, 0.6, "make fewer edits at once")
    return ToolResult.error("refused", told, {"failed": faults})


def _edited(made: Sequence[Made], files: Sequence[Draft], limit_chars: int) -> ToolResult:
    pieces = [f"Made {count_of(len(made), 'edit')} in {count_of(len(files), 'file')}:"]
    pieces += [f"{file.path}: {STALE} Your edits are in, on top of that." for file in files if file.view.stale]
    for number, each in enumerate(made, 1):
        pieces.append(f"{number}/{len(made)} {each.path}: {described(each.edit, each.diff)}\n{each.diff.text}")
    entries = [_entry(file) for file in files]
    shown = cut_middle("\n".join(pieces), limit_chars - NOTES_CHARS, 0.6, "read_file shows the files")
    return ToolResult(
        ok=True,
        content=readable(shown),
        data={"files": entries, "edits": len(made)},
        events=[("file", entry) for entry in entries],
        memory=_merged(file.view.after_edit(file.path, digest(file.text.encode())) for file in files),
    )


def _entry(file: Draft) -> JSON:
    content = file.text.encode()
    return {
        "path": file.path,
        "action": "edited",
        "size": len(content),
        "sha256": digest(content),
        "added": sum(diff.added for diff in file.diffs),
        "removed": sum(diff.removed for diff in file.diffs),
    }


def _merged(memories: Iterable[JSON]) -> JSON:
    merged: JSON = {}
    for memory in memories:
        for name, files in memory.items():
            merged.setdefault(name, {}).update(files)
    return merged
