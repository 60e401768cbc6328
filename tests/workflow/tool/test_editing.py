"""What an edit's arguments mean for a file, and what the model is told when they mean nothing certain."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.support.patience import in_bounded_time
from workflow.tool.content import Text
from workflow.tool.diff import diff_of
from workflow.tool.editing import Edit, EditArgs, Refusal, plan_edit
from workflow.tool.matching import Match


def plan(content: str | bytes, old: str, new: str, *, everywhere: bool = False) -> Edit | Refusal:
    raw = content.encode() if isinstance(content, str) else content
    return plan_edit(Text.decode(raw), EditArgs(file_path="f", old_string=old, new_string=new, replace_all=everywhere))


def done(content: str | bytes, old: str, new: str, *, everywhere: bool = False) -> bytes:
    edit = plan(content, old, new, everywhere=everywhere)
    assert isinstance(edit, Edit), edit
    return edit.after()


def refused(content: str | bytes, old: str, new: str, *, everywhere: bool = False) -> Refusal:
    refusal = plan(content, old, new, everywhere=everywhere)
    assert isinstance(refusal, Refusal)
    return refusal


@given(
    st.binary(max_size=60), st.text(alphabet="xyzé→", min_size=1, max_size=4), st.binary(max_size=60), st.text("ab\n")
)
def test_an_edit_of_any_file_leaves_every_other_byte(before: bytes, old: str, after: bytes, new: str) -> None:
    content = before + old.encode() + after
    assume(content.count(old.encode()) == 1 and not before.startswith(b"\xef\xbb\xbf"))
    assume(content.decode("utf-8", "surrogateescape").count(old) == 1)
    edit = plan(content, old, new)
    assume(isinstance(edit, Edit))  # not where old and new are the same, or new is a placeholder
    changed = done(content, old, new)
    assert changed.startswith(before)
    assert changed.endswith(after)
    middle = changed[len(before) : len(changed) - len(after)]
    assert middle.replace(b"\r\n", b"\n") == new.encode()


@pytest.mark.parametrize(
    ("content", "old", "new", "result"),
    [
        (b"\xef\xbb\xbfa\r\nb", "a", "x\ny", b"\xef\xbb\xbfx\r\ny\r\nb"),
        (b"\xef\xbb\xbfa\n", "\ufeffa", "\ufeffb", b"\xef\xbb\xbfb\n"),
        (b"caf\xe9 one\ntwo", "two", "2", b"caf\xe9 one\n2"),
        ("naïve\n".encode(), "ï", "i", b"naive\n"),
        (b"a\nb", "b", "", b"a\n"),
        (b"$1 \\1 \\g<0>\n", "$1", "\\1", b"\\1 \\1 \\g<0>\n"),
    ],
)
def test_marks_encodings_and_endings_stay(content: bytes, old: str, new: str, result: bytes) -> None:
    assert done(content, old, new) == result


def test_every_place_is_changed_only_on_demand() -> None:
    assert done("a b a", "a", "c", everywhere=True) == b"c b c"
    refusal = refused("a\nb\na\n", "a", "c")
    assert refusal.code == "ambiguous"
    assert "2 places: lines 1, 3. To change every place, set replace_all." in refusal.text


def test_many_places_are_listed_in_part() -> None:
    assert "lines 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, …" in refused("a\n" * 20, "a", "b").text


def test_places_that_match_but_for_indentation_are_never_changed_together() -> None:
    refusal = refused("  if a:\n    b\n\n  if a:\n    b\n", "if a:\n  b", "c", everywhere=True)
    assert refusal.code == "ambiguous"
    assert "replace_all" not in refusal.text


@pytest.mark.parametrize("old", ["", " ", "\n\n", "\t"])
def test_white_space_is_no_old_text(old: str) -> None:
    assert refused(" a \n\n\t", old, "b").code == "empty_old_string"


def test_an_edit_must_change_something() -> None:
    assert refused("a", "a", "a").code == "no_change"
    assert refused("a\r\nb\r\n", "a\nb\n", "a\r\nb\r\n").code == "no_change"


def test_line_numbers_in_the_old_text_are_pointed_out() -> None:
    assert "Leave the numbers and arrows out" in refused("a\nb\n", "     1→a\n     2→b", "c").text
    assert isinstance(plan("     1→a\n", "     1→a", "c"), Edit)


def test_a_placeholder_in_the_new_text_is_refused_unless_the_old_text_has_it() -> None:
    assert refused("a\n", "a", "# ... rest of the code ...").code == "placeholder"
    assert isinstance(
        plan("# ... rest of the code ...\na", "# ... rest of the code ...\na", "# ... rest of the code ...\nb"), Edit
    )


def test_text_that_is_not_there_gets_the_nearest_place() -> None:
    refusal = refused("def f(a):\n    return a + 1\n", "    return a + 2\n", "x")
    assert refusal.code == "not_found"
    assert "     2→    return a + 1" in refusal.text


def test_how_it_matched_is_known() -> None:
    edit = plan("  a\n  b\n", "a\nb", "c\nd")
    assert isinstance(edit, Edit)
    assert edit.match is Match.INDENTATION
    assert edit.after() == b"  c\n  d\n"


@pytest.mark.parametrize("new", ['"b"', '"b"\n'])
@pytest.mark.parametrize("end", ["", "\r\n"])
def test_replacing_a_word_everywhere_in_one_long_line_costs_no_more_than_the_line(new: str, end: str) -> None:
    content = "first\r\n" + '{"a":1},' * 500_000 + end
    with in_bounded_time():
        edit = plan(content, '"a"', new, everywhere=True)
        assert isinstance(edit, Edit)
        diff_of(edit.before.text, edit.spans)
    assert edit.text_after() == content.replace('"a"', new.replace("\n", "\r\n"))
