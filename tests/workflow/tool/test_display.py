"""Long and wild text becomes bounded, plain text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.patience import in_bounded_time
from workflow.tool.display import LINE_CHARS, count_of, cut_middle, printable, short_line, short_lines, size_text

LINES = st.lists(st.text(alphabet="ab→é\u2028\r\t ", max_size=40)).map("\n".join)
WHOLE = "full output: /workspace/.agent/outputs/x.txt"


def test_colours_and_terminal_commands_are_taken_out() -> None:
    assert printable("\x1b[31mred\x1b[0m \x1b]0;title\x07text\x1b[2K") == "red text"


def test_a_progress_bar_shows_its_last_state() -> None:
    assert printable("10%\r50%\r100%\ndone\r\n") == "100%\ndone\n"


@given(st.text())
def test_what_is_printed_keeps_its_lines_and_no_control_characters(text: str) -> None:
    shown = printable(text)
    assert shown.count("\n") == text.count("\n")
    assert not any(ord(c) < 32 and c not in "\t\n" for c in shown)


@given(LINES)
def test_plain_text_is_printed_as_it_is(text: str) -> None:
    plain = text.replace("\r", "")
    assert printable(plain) == plain


@pytest.mark.parametrize("piece", ["x", "\r", "x\r", "\x1b]", "\x1b[0", "\r\x00"])
def test_one_long_line_costs_no_more_than_its_length(piece: str) -> None:
    with in_bounded_time():
        printable(piece * 2_000_000)


@given(st.text(alphabet="ab\r\n\x00"))
def test_of_a_line_that_was_written_over_its_last_state_is_shown(text: str) -> None:
    lines = text.replace("\r\n", "\n").replace("\x00", "").split("\n")
    states = [[state for state in line.split("\r") if state] for line in lines]
    assert printable(text) == "\n".join(states[-1] if states else "" for states in states)


def test_a_long_line_is_shortened_and_says_by_how_much() -> None:
    assert short_line("x" * (LINE_CHARS + 1_234)).endswith("x… [1,234 more characters in this line]")
    assert short_lines("a\n" + "b" * LINE_CHARS) == "a\n" + "b" * LINE_CHARS


@given(LINES, st.integers(200, 400), st.floats(0, 1))
def test_a_cut_text_fits_and_consists_of_its_two_ends(text: str, limit: int, head_share: float) -> None:
    cut = cut_middle(text, limit, head_share, WHOLE)
    assert len(cut) <= limit
    if len(text) <= limit:
        assert cut == text
    else:
        head, _, rest = cut.partition("[… ")
        note, _, tail = rest.partition(" …]\n")
        assert text.startswith(head.removesuffix("\n"))
        assert text.endswith(tail)
        assert WHOLE in note
        omitted = int(note.split(" ")[0].replace(",", ""))
        assert len(text) - omitted - len(tail) - len(head) in (-1, 0)  # the line feed before the note may be ours


def test_a_cut_prefers_whole_lines() -> None:
    text = "\n".join(f"line {n}" for n in range(1_000))
    head, tail = (
        cut_middle(text, 1_000, 0.5, "whole").split("[…")[0],
        cut_middle(text, 1_000, 0.5, "whole").split("…]\n")[1],
    )
    assert set((head + tail).split("\n")) - {""} <= set(text.split("\n"))


def test_sizes_and_counts_are_for_people() -> None:
    assert [size_text(n) for n in (0, 1023, 1024, 5 * 1024**2, 3 * 1024**4)] == [
        "0 B", "1023 B", "1.0 KiB", "5.0 MiB", "3072.0 GiB",
    ]  # fmt: skip
    assert [count_of(n, "line") for n in (0, 1, 1_200)] == ["0 lines", "1 line", "1,200 lines"]
