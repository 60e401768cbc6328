"""Where an edit's old text stands in a file: exactly, up to line endings, or up to indentation. Never by likeness."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class Match(StrEnum):
    EXACT = "exact"
    LINE_ENDINGS = "line_endings"
    INDENTATION = "indentation"


@dataclass(frozen=True, slots=True)
class Span:
    """`text[start:end]` becomes `new`."""

    start: int
    end: int
    new: str


def find_spans(text: str, old: str, new: str) -> tuple[Match, list[Span]]:
    """All places where `old` stands, by the strictest way that finds any; overlapping ones too. Empty: nowhere."""
    if spans := list(_exactly(text, old, new)):
        return Match.EXACT, spans
    if spans := list(_ignoring_endings(text, old, new)):
        return Match.LINE_ENDINGS, spans
    return Match.INDENTATION, list(_ignoring_indentation(text, old, new))


def replace_spans(text: str, spans: list[Span]) -> str:
    """Every character outside of the spans (in order, not overlapping) stays as it is."""
    parts, at = [], 0
    for span in spans:
        parts += [text[at : span.start], span.new]
        at = span.end
    return "".join([*parts, text[at:]])


def without_overlaps(spans: list[Span]) -> list[Span]:
    """From left to right, as `str.replace` would take them."""
    taken: list[Span] = []
    for span in spans:
        if not taken or span.start >= taken[-1].end:
            taken.append(span)
    return taken


def line_of(text: str, at: int) -> int:
    """The number, from 1, of the line that character `at` is in."""
    return text.count("\n", 0, at) + 1


def _exactly(text: str, old: str, new: str) -> Iterator[Span]:
    """`new` gets the line endings used around each place, unless the edit is about line endings itself."""
    endings = _Endings(text)
    as_it_is = "\r" in old or "\r" in new or "\n" not in new
    at = text.find(old)
    while at >= 0:
        if "\r" in old or not _splits_ending(text, at):
            yield Span(at, at + len(old), new if as_it_is else new.replace("\n", endings.near(at)))
        at = text.find(old, at + 1)


def _splits_ending(text: str, at: int) -> bool:
    """Whether `at` is between the CR and the LF of one line ending."""
    return text.startswith("\n", at) and text.endswith("\r", 0, at)


class _Endings:
    """How the lines of a text end, asked of places from left to right. It looks at each line once."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._until = -1
        self._ending = "\n"

    def near(self, at: int) -> str:
        """How the line at `at` ends; for an unfinished last line, how the one before it does."""
        if at > self._until:
            feed = self._text.find("\n", at)
            self._until = feed if feed >= 0 else len(self._text)
            if feed < 0:
                feed = self._text.rfind("\n", 0, at)
            self._ending = "\r\n" if feed > 0 and self._text[feed - 1] == "\r" else "\n"
        return self._ending


def _ignoring_endings(text: str, old: str, new: str) -> Iterator[Span]:
    """In text where CRLF and LF are the same. The match covers whole line endings, never half of a CRLF."""
    if "\r\n" not in text and "\r\n" not in old:
        return
    ending = r"(?:\r\n|(?<!\r)\n)"
    pattern = re.compile(ending.join(re.escape(line) for line in old.replace("\r\n", "\n").split("\n")))
    plain = new.replace("\r\n", "\n")
    endings = _Endings(text)
    found = pattern.search(text)
    while found:
        start, end = found.span()
        yield Span(start, end, plain.replace("\n", endings.near(start)))
        found = pattern.search(text, start + 1)


def _ignoring_indentation(text: str, old: str, new: str) -> Iterator[Span]:
    """Whole lines that are `old`'s but for white space at their ends, where one shift of indentation explains it."""
    wanted = old.replace("\r\n", "\n").removesuffix("\n").split("\n")
    stripped = [line.strip() for line in wanted]
    if not any(stripped):
        return
    lines = text.split("\n")
    bare = [line.strip() for line in lines]
    starts = _line_starts(lines)
    for first in range(len(lines) - len(wanted) + 1):
        last = first + len(wanted) - 1
        if bare[first] != stripped[0] or bare[first : last + 1] != stripped:
            continue
        shifted = _shift(wanted, lines[first : last + 1], new.replace("\r\n", "\n").split("\n"))
        if shifted is not None:
            start = starts[first]
            yield _whole_lines(text, start, starts[last] + len(lines[last]), old, shifted)


def _whole_lines(text: str, start: int, end: int, old: str, new: list[str]) -> Span:
    """The span from `start` to the end of its last line, with that line's ending only where `old` has one too."""
    ending = _Endings(text).near(start)
    if text.endswith("\r", start, end) and not old.endswith("\n"):
        end -= 1
    elif old.endswith("\n") and end < len(text):
        end += 1
    elif old.endswith("\n") and new[-1] == "":
        new = new[:-1]  # the file's last line has no ending, and gets none
    return Span(start, end, ending.join(new))


def _line_starts(lines: list[str]) -> list[int]:
    starts, at = [], 0
    for line in lines:
        starts.append(at)
        at += len(line) + 1
    return starts


def _shift(wanted: list[str], found: list[str], new: list[str]) -> list[str] | None:
    """`new` moved as the file's lines are moved against the wanted ones; None when they are not all moved alike."""
    pairs = [(_indent(w), _indent(f)) for w, f in zip(wanted, found, strict=True) if w.strip()]
    shallow, deep = pairs[0]
    if deep.endswith(shallow):
        added = deep[: len(deep) - len(shallow)]
        if all(f == added + w for w, f in pairs):
            return [added + line if line.strip() else line for line in new]
    elif shallow.endswith(deep):
        removed = shallow[: len(shallow) - len(deep)]
        if all(w == removed + f for w, f in pairs) and all(n.startswith(removed) for n in new if n.strip()):
            return [line.removeprefix(removed) for line in new]
    return None


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]
