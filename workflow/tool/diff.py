"""A unified diff made from an edit's spans: its cost follows the edit, not the file."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from workflow.tool.matching import Span

CONTEXT_LINES = 3
UNFINISHED = "\\ No newline at end of file"


@dataclass(frozen=True, slots=True)
class Diff:
    """`text` is the hunks, without a file header; `lines` is the first and last changed line as numbered afterwards."""

    text: str
    added: int
    removed: int
    lines: tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Block:
    """Old lines [start, end), from 0, become `new`. Lines keep their endings."""

    start: int
    end: int
    new: list[str]


def diff_of(text: str, spans: Sequence[Span]) -> Diff:
    """What `spans` (in order, none empty, none overlapping, together a change) do to `text`."""
    lines = split_lines(text)
    blocks = [fine for block in _blocks(text, lines, spans) for fine in _refine(lines, block)]
    hunks: list[str] = []
    shift = 0  # how much later lines stand after the edit than before
    last = 0
    for group in _groups(blocks):
        hunks.append(_hunk(lines, group, shift))
        shift += sum(len(block.new) - (block.end - block.start) for block in group)
        last = group[-1].end + shift
    added, removed = sum(len(b.new) for b in blocks), sum(b.end - b.start for b in blocks)
    return Diff("\n".join(hunks), added, removed, (blocks[0].start + 1, max(last, blocks[0].start + 1)))


def split_lines(text: str) -> list[str]:
    """Lines with their endings: unlike `str.splitlines`, only LF ends one."""
    *finished, rest = text.split("\n")
    return [line + "\n" for line in finished] + ([rest] if rest else [])


def _blocks(text: str, lines: list[str], spans: Sequence[Span]) -> Iterator[_Block]:
    """The whole lines that each span touches; spans that share a line make one block."""
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    first = last = index = 0
    while index < len(spans):
        first = last = _line_at(starts, spans[index].start, last)
        new = [text[starts[first] : spans[index].start]]
        while True:
            span = spans[index]
            last = _line_at(starts, span.end, last)
            end = starts[min(last + 1, len(lines))]
            index += 1
            if index == len(spans) or spans[index].start >= end:
                break
            new += [span.new, text[span.end : spans[index].start]]
        new += [span.new, text[span.end : end]]
        yield _Block(first, min(last + 1, len(lines)), split_lines("".join(new)))


def _line_at(starts: list[int], position: int, line: int) -> int:
    """The line that holds `position`, looked for from `line` on; the end of the text is in a line after the last."""
    while line + 1 < len(starts) and starts[line + 1] <= position:
        line += 1
    return line


def _refine(lines: list[str], block: _Block) -> Iterator[_Block]:
    """Only the lines of a block that differ."""
    matcher = SequenceMatcher(None, lines[block.start : block.end], block.new)
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        if tag != "equal":
            yield _Block(block.start + i1, block.start + i2, block.new[j1:j2])


def _groups(blocks: Sequence[_Block]) -> Iterator[list[_Block]]:
    """Neighbours whose contexts touch are one hunk."""
    group: list[_Block] = []
    for block in blocks:
        if group and block.start - group[-1].end > 2 * CONTEXT_LINES:
            yield group
            group = []
        group.append(block)
    if group:
        yield group


def _hunk(lines: list[str], group: list[_Block], shift: int) -> str:
    start = at = max(group[0].start - CONTEXT_LINES, 0)
    end = min(group[-1].end + CONTEXT_LINES, len(lines))
    body: list[str] = []
    for block in group:
        body += [" " + line for line in lines[at : block.start]]
        body += ["-" + line for line in lines[block.start : block.end]]
        body += ["+" + line for line in block.new]
        at = block.end
    body += [" " + line for line in lines[at:end]]
    before = sum(line[0] != "+" for line in body)
    after = sum(line[0] != "-" for line in body)
    # a side without lines is named by the line before it, from 0, as diff(1) does
    left, right = start + (before > 0), start + shift + (after > 0)
    return "\n".join([f"@@ -{left},{before} +{right},{after} @@", *(_shown(line) for line in body)])


def _shown(line: str) -> str:
    ended = line.removesuffix("\n")
    return ended.removesuffix("\r") if ended != line else f"{line}\n{UNFINISHED}"
