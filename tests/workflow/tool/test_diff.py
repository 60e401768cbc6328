"""The diff shown is the edit that was made."""

import difflib
import re

from hypothesis import given
from hypothesis import strategies as st

from workflow.tool.diff import UNFINISHED, diff_of, split_lines
from workflow.tool.matching import Span, replace_spans

TEXT = st.text(alphabet="ab\n", min_size=1, max_size=40)


@st.composite
def edits(draw: st.DrawFn) -> tuple[str, list[Span]]:
    text = draw(TEXT)
    places = sorted(draw(st.lists(st.integers(0, len(text)), min_size=2, max_size=6, unique=True)))
    spans = [
        Span(start, end, draw(st.text(alphabet="xb\n", max_size=5)))
        for start, end in zip(places[::2], places[1::2], strict=False)
    ]
    return text, spans


def applied(text: str, diff: str) -> str:
    """What patch(1) would make of it."""
    lines, out, at = split_lines(text), [], 0
    hunks = re.split(r"^@@ -(\d+),(\d+) \+\d+,\d+ @@\n?", diff, flags=re.MULTILINE)[1:]
    for first, count, body in zip(hunks[::3], hunks[1::3], hunks[2::3], strict=True):
        start = int(first) - (int(count) > 0)
        out += lines[at:start]
        at = start
        finished = body.removesuffix("\n").replace("\n" + UNFINISHED, UNFINISHED).split("\n")
        for line in finished:
            content = line[1:].removesuffix(UNFINISHED) + ("" if line.endswith(UNFINISHED) else "\n")
            if line[0] != "+":
                assert lines[at] == content
                at += 1
            if line[0] != "-":
                out.append(content)
    return "".join(out + lines[at:])


@given(edits())
def test_a_diff_applied_to_the_old_text_gives_the_new_one(edit: tuple[str, list[Span]]) -> None:
    text, spans = edit
    after = replace_spans(text, spans)
    if after == text:
        return
    diff = diff_of(text, spans)
    assert applied(text, diff.text) == after
    signs = [line[0] for line in diff.text.split("\n")]
    assert (signs.count("+"), signs.count("-")) == (diff.added, diff.removed)
    first, last = diff.lines
    assert 1 <= first <= last <= max(len(split_lines(after)), first)


def test_it_looks_like_any_unified_diff() -> None:
    text = "".join(f"line {n}\n" for n in range(1, 41))
    spans = [
        Span(text.index("line 5\n"), text.index("line 6"), "new\nlines\n"),
        Span(text.index("line 33"), text.index("line 34"), ""),
    ]
    after = replace_spans(text, spans)
    expected = difflib.unified_diff(text.splitlines(), after.splitlines(), lineterm="")
    assert diff_of(text, spans).text.split("\n") == list(expected)[2:]


def test_it_tells_a_last_line_without_an_ending() -> None:
    assert diff_of("a\nb", [Span(2, 3, "c")]).text == f"@@ -1,2 +1,2 @@\n a\n-b\n{UNFINISHED}\n+c\n{UNFINISHED}"
    assert diff_of("a\n", [Span(1, 2, "")]).text == f"@@ -1,1 +1,1 @@\n-a\n+a\n{UNFINISHED}"
    assert diff_of("a\n", [Span(0, 2, "")]).text == "@@ -1,1 +0,0 @@\n-a"


def test_its_size_follows_the_edit_not_the_file() -> None:
    text = "x\n" * 100_000
    diff = diff_of(text, [Span(100_000, 100_001, "y")])
    assert len(diff.text.split("\n")) == 9
    assert diff.lines == (50_001, 50_001)
