"""An edit finds its place strictly, and changes nothing outside of it."""

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from workflow.tool.content import Text
from workflow.tool.matching import Match, find_spans, line_of, replace_spans, without_overlaps

ENDING = st.sampled_from(["\n", "\r\n"])
LINE = st.text(alphabet="ab \t→é\u2028\x0c\udcff\u00a0", max_size=6)


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Lines with mixed endings, with or without an ending of the last."""
    lines = draw(st.lists(st.tuples(LINE, ENDING), max_size=8))
    return "".join(line + ending for line, ending in lines) + draw(st.one_of(st.just(""), LINE))


def edited(text: str, old: str, new: str) -> str:
    """As `old` stands once."""
    _, (span,) = find_spans(text, old, new)
    return replace_spans(text, [span])


@given(texts(), st.data())
def test_any_piece_of_a_text_is_found_where_it_stands(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    old = text[start:end]
    assume(old.strip())
    assume("\r" in old or not (old.startswith("\n") and text[:start].endswith("\r")))
    match, spans = find_spans(text, old, "new")
    assert match is Match.EXACT
    assert (start, end) in [(span.start, span.end) for span in spans]


@given(texts(), st.text(alphabet="ab \t\n", min_size=1, max_size=8), st.text(alphabet="ab \t\n", max_size=8))
@example("a\n", "a\n ", "b")
def test_nothing_outside_of_the_places_changes(text: str, old: str, new: str) -> None:
    assume(old.strip())
    match, spans = find_spans(text, old, new)
    spans = without_overlaps(spans)
    after = replace_spans(text, spans)
    at = shift = 0
    for span in spans:
        assert after[at + shift : span.start + shift] == text[at : span.start]
        assert after[span.start + shift :].startswith(span.new)
        assert not (text[: span.start].endswith("\r") and text[span.start :].startswith("\n"))
        at, shift = span.end, shift + len(span.new) - (span.end - span.start)
        plain = text[span.start : span.end].replace("\r\n", "\n")
        if match is not Match.INDENTATION:
            assert plain == old
        else:
            ending = "\n" if old.endswith("\n") else ""
            assert [line.strip() for line in plain.removesuffix(ending).split("\n")] == [
                line.strip() for line in old.removesuffix(ending).split("\n")
            ]
    assert after[at + shift :] == text[at:]


@given(texts(), st.text(alphabet="ab\n", min_size=1, max_size=5), st.text(alphabet="ab\n", max_size=5), ENDING)
def test_a_file_with_one_kind_of_line_ending_keeps_it(text: str, old: str, new: str, ending: str) -> None:
    assume(old.strip())
    text = text.replace("\r\n", "\n").replace("\n", ending)
    assume(ending in text)
    _, spans = find_spans(text, old, new)
    after = replace_spans(text, without_overlaps(spans))
    rest = after.replace("\r\n", "")
    assert ("\n" in rest) == (ending == "\n" and "\n" in after)
    assert "\r" not in rest


@given(texts(), st.text(alphabet="ab", min_size=1, max_size=2), st.text(alphabet="ab", max_size=3))
def test_replacing_every_place_is_what_str_replace_does(text: str, old: str, new: str) -> None:
    match, spans = find_spans(text, old, new)
    assume(match is Match.EXACT)
    assert replace_spans(text, without_overlaps(spans)) == text.replace(old, new)


@given(st.binary())
def test_bytes_that_are_not_utf8_and_a_byte_order_mark_come_back(content: bytes) -> None:
    for whole in (content, b"\xef\xbb\xbf" + content):
        assert Text.decode(whole).encode() == whole


def test_lf_in_the_old_text_matches_crlf_and_the_new_lines_end_like_the_file() -> None:
    assert find_spans("a\r\nb\r\nc", "a\nb", "x\ny\nz")[0] is Match.LINE_ENDINGS
    assert edited("a\r\nb\r\nc", "a\nb", "x\ny\nz") == "x\r\ny\r\nz\r\nc"
    assert edited("a\r\nb\r\n", "\nb", "\nx") == "a\r\nx\r\n"


def test_crlf_in_the_old_text_matches_lf() -> None:
    assert edited("a\nb\nc", "a\r\nb", "x\r\ny") == "x\ny\nc"


def test_a_new_line_in_a_crlf_file_ends_with_crlf() -> None:
    assert edited("a\r\nb\r\n", "b", "b\nc") == "a\r\nb\r\nc\r\n"
    assert edited("a\r\nb", "b", "b\nc") == "a\r\nb\r\nc"


def test_line_endings_themselves_can_be_edited() -> None:
    assert edited("a\r\nb", "a\r\nb", "a\nb") == "a\nb"


def test_places_that_overlap_count_as_two() -> None:
    assert len(find_spans("aaa", "aa", "b")[1]) == 2


def test_indentation_is_adapted_when_all_lines_are_shifted_alike() -> None:
    text = "class A:\n    def f(self):\n        return 1\n"
    match, _ = find_spans(text, "def f(self):\n    return 1", "def f(self):\n    if x:\n\n        return 2")
    assert match is Match.INDENTATION
    assert (
        edited(text, "def f(self):\n    return 1\n", "def f(self):\n    if x:\n\n        return 2\n")
        == "class A:\n    def f(self):\n        if x:\n\n            return 2\n"
    )
    assert edited("a:\n  b\n", "    a:\n      b\n", "    a:\n      c\n") == "a:\n  c\n"


def test_white_space_at_line_ends_may_differ() -> None:
    assert edited("a  \nb\t\nc\n", "a\nb\n", "x\ny\n") == "x\ny\nc\n"


@pytest.mark.parametrize(
    ("text", "old", "new"),
    [
        ("if a:\n\tb\n", "if a:\n    b", "if a:\n    c"),  # tabs against spaces: no single shift
        ("a\n b\n", "  a\nb", "x"),
        ("x\n", "    x", "y"),  # the new text is less indented than what was taken off
        ("", "x", "y"),
        ("ab", "abc", "y"),
    ],
)
def test_what_is_only_alike_does_not_match(text: str, old: str, new: str) -> None:
    assert find_spans(text, old, new)[1] == []


def test_an_indented_match_in_the_last_line_adds_no_line_ending() -> None:
    assert edited("a\n  b", "b\n", "c\n") == "a\n  c"
    assert edited("a\r\n  b\r\n", "b \n", "c\n") == "a\r\n  c\r\n"


def test_lines_are_counted_from_one() -> None:
    assert [line_of("a\nb\nc", at) for at in (0, 1, 2, 4)] == [1, 1, 2, 3]
