"""What an edit's arguments mean for a text: a change of certain places, or the reason why they mean nothing certain."""

import re
from dataclasses import dataclass

from pydantic import Field

from shared.types import JSON
from workflow.tool.base import Args
from workflow.tool.content import BOM, Text, lines_of, readable
from workflow.tool.diff import Diff
from workflow.tool.matching import Match, Span, find_spans, line_of, replace_spans, without_overlaps
from workflow.tool.memory import Memory, file_memory
from workflow.tool.nearest import describe_nearest
from workflow.tool.placeholder import find_placeholder

LISTED_LINES = 10
NUMBERED = re.compile(r"\s*\d+[→\t]")
STALE = "The file has changed since you last saw it (a command or somebody else wrote it)."
HOW = {
    Match.EXACT: "",
    Match.LINE_ENDINGS: " (matched up to line endings; the file's were kept)",
    Match.INDENTATION: " (matched ignoring indentation and white space at line ends; indentation was adapted)",
}


class EditArgs(Args):
    file_path: str = Field(description="The file: absolute, or relative to /workspace.")
    old_string: str = Field(description="The text to replace, exactly as it stands in the file.")
    new_string: str = Field(description="The text to put in its place. Empty: the old text is removed.")
    replace_all: bool = Field(False, description="Replace every place where old_string stands (default false).")


@dataclass(frozen=True, slots=True)
class Refusal:
    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Edit:
    """A decided change."""

    before: Text
    match: Match
    spans: list[Span]

    def text_after(self) -> str:
        return replace_spans(self.before.text, self.spans)

    def after(self) -> bytes:
        return self.before.with_text(self.text_after()).encode()


@dataclass(frozen=True, slots=True)
class View:
    """What the model knew of the file: whether it was shown any of it, and whether that is no longer true."""

    known: bool
    stale: bool

    @classmethod
    def of(cls, memory: Memory, path: str, sha256: str) -> "View":
        seen = memory.files.get(path)
        return cls(known=seen is not None, stale=seen is not None and seen.sha256 != sha256)

    def after_edit(self, path: str, sha256: str) -> JSON:
        """The memory: who has not seen what stands beside the edit does not know the file by having edited it."""
        if self.stale:
            return {"changed": {path: sha256}}
        return file_memory(path, sha256) if self.known else {}


def plan_edit(before: Text, args: EditArgs) -> Edit | Refusal:
    """What the arguments mean for this text, or why they mean nothing certain."""
    text = before.text
    old, new = args.old_string.removeprefix(BOM), args.new_string.removeprefix(BOM)
    if fault := _argument_fault(old, new):
        return fault
    match, spans = find_spans(text, old, new)
    if not spans:
        return _not_found(text, old)
    if len(spans) > 1 and not (args.replace_all and match is not Match.INDENTATION):
        return _ambiguous(text, match, spans)
    spans = without_overlaps(spans)
    if all(text[span.start : span.end] == span.new for span in spans):
        return Refusal("no_change", "the file already has this text with its own line endings or indentation.")
    return Edit(before, match, spans)


def described(edit: Edit, diff: Diff) -> str:
    """`2 places, now lines 3-9, +4 -2`"""
    first, last = diff.lines
    places = f"{len(edit.spans)} places, " if len(edit.spans) > 1 else ""
    lines = f"line {first}" if first == last else f"lines {first}-{last}"
    return f"{places}now {lines}, +{diff.added} -{diff.removed}{HOW[edit.match]}"


def _argument_fault(old: str, new: str) -> Refusal | None:
    if not old.strip():
        return Refusal(
            "empty_old_string",
            "old_string is empty or only white space. Give the text to replace; to make a new file, use write_files.",
        )
    if old == new:
        return Refusal("no_change", "old_string and new_string are the same. Give what is to change.")
    if placeholder := find_placeholder(new, old):
        number, line = placeholder
        return Refusal("placeholder", f"line {number} of new_string stands for left-out code: {line!r}. Write it out.")
    return None


def _not_found(text: str, old: str) -> Refusal:
    lines = lines_of(old)
    if all(NUMBERED.match(line) for line in lines if line.strip()):
        return Refusal(
            "not_found",
            "old_string begins its lines with the line numbers of read_file. Leave the numbers and arrows out.",
        )
    help_text = describe_nearest([readable(line) for line in lines_of(text)], lines)
    return Refusal("not_found", f"old_string does not stand in the file. {help_text}")


def _ambiguous(text: str, match: Match, spans: list[Span]) -> Refusal:
    numbers = [str(line_of(text, span.start)) for span in spans[:LISTED_LINES]]
    more = ", …" if len(spans) > LISTED_LINES else ""
    way_out = "" if match is Match.INDENTATION else "To change every place, set replace_all. "
    return Refusal(
        "ambiguous",
        f"old_string stands in {len(spans)} places{HOW[match]}: lines {', '.join(numbers)}{more}. {way_out}To change "
        "one, take in neighbouring lines until it is unique.",
    )
