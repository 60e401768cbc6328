"""Replaces a piece of a file, and not a byte beside it."""

from typing import ClassVar

from shared.types import JSON
from workflow.sandbox.base import FileChanged, FileWrite
from workflow.tool.base import Effect, Tool, ToolContext, ToolResult
from workflow.tool.content import Text, digest, readable
from workflow.tool.diff import diff_of
from workflow.tool.display import cut_middle
from workflow.tool.editing import STALE, Edit, EditArgs, Refusal, View, described, plan_edit
from workflow.tool.paths import resolve
from workflow.tool.read_file import open_text_file
from workflow.tool.syntax import with_syntax_check

NOTES_CHARS = 2_000  # kept free for what is said beside the diff


class FileEditTool(Tool[EditArgs]):
    name: ClassVar[str] = "edit_file"
    effect: ClassVar[Effect] = Effect.IDEMPOTENT
    Args = EditArgs

    async def run(self, args: EditArgs, ctx: ToolContext) -> ToolResult:
        path = resolve(args.file_path)
        sandbox = await ctx.sandbox()
        file = await open_text_file(sandbox, path, ctx.limits.file_bytes)
        if isinstance(file, ToolResult):
            return file
        edit = plan_edit(Text.decode(file.content), args)
        view = View.of(ctx.memory, path, digest(file.content))
        if isinstance(edit, Refusal):
            text = f"{path} was not edited: {edit.text}" + (f"\n{STALE} Read it again." if view.stale else "")
            return ToolResult.error(edit.code, text, {"path": path})
        after = edit.after()
        result = _edited(path, edit, after, view, ctx.limits.output_chars)
        write = FileWrite(path, after, expect=digest(file.content))
        try:
            written = await sandbox.write([write], ctx.key, ctx.epoch, result.encode())
        except FileChanged:
            return ToolResult.error(
                "changed_meanwhile", f"{path} was written by somebody else just now: read it again."
            )
        return await with_syntax_check(sandbox, ctx, ToolResult.decode(written.note), [path])

    async def recover(self, args: EditArgs, ctx: ToolContext) -> ToolResult | None:
        """A write is known by its key, and its result was written down with it."""
        sandbox = await ctx.sandbox()
        note = await sandbox.recall(ctx.key, ctx.epoch)
        if note is None:
            return None
        return await with_syntax_check(sandbox, ctx, ToolResult.decode(note), [resolve(args.file_path)])


def _edited(path: str, edit: Edit, after: bytes, view: View, limit_chars: int) -> ToolResult:
    diff = diff_of(edit.before.text, edit.spans)
    shown = readable(cut_middle(diff.text, limit_chars - NOTES_CHARS, 0.6, f"read_file shows all of {path}"))
    head = f"Edited {path}: {described(edit, diff)}"
    sha256 = digest(after)
    data: JSON = {
        "path": path,
        "action": "edited",
        "size": len(after),
        "sha256": sha256,
        "added": diff.added,
        "removed": diff.removed,
    }
    return ToolResult(
        ok=True,
        content="\n".join([head, *([f"{STALE} Your edit is in, on top of that."] if view.stale else []), shown]),
        data=data | {"match": edit.match, "diff": shown, "lines": list(diff.lines)},
        events=[("file", data)],
        memory=view.after_edit(path, sha256),
    )
