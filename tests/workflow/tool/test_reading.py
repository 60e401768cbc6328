"""Pages of a file: complete, bounded, and the last line says how to go on."""

from hypothesis import given
from hypothesis import strategies as st

from workflow.tool.content import lines_of
from workflow.tool.read_file import footer, page_of


@given(
    st.lists(st.text(alphabet="ab→é\t", max_size=30), min_size=1, max_size=50), st.integers(1, 10), st.integers(1, 200)
)
def test_pages_one_after_the_other_show_each_line_once(lines: list[str], limit: int, limit_chars: int) -> None:
    shown: list[str] = []
    first = 1
    while first <= len(lines):
        page = page_of(lines, first, limit, limit_chars)
        rows = page.text.split("\n")
        assert page.first == first
        assert 1 <= len(rows) == page.last - first + 1 <= limit
        assert len(page.text) <= limit_chars or len(rows) == 1
        assert [row.partition("→")[0].strip() for row in rows] == [str(n) for n in range(first, page.last + 1)]
        shown += [row.partition("→")[2] for row in rows]
        last = footer(page)
        assert (f"Use offset={page.last + 1} to continue" in last) == (page.last < len(lines))
        first = page.last + 1
    assert shown == lines


def test_numbers_are_aligned_and_long_lines_are_shortened() -> None:
    page = page_of(lines_of("a\n" + "b" * 2_003 + "\r\n"), 1, 10, 50_000)
    assert page.text == "     1→a\n     2→" + "b" * 2_000 + "… [3 more characters in this line]"
    assert footer(page) == "(End of file - 2 lines)"


def test_bytes_that_are_not_utf8_can_be_read() -> None:
    assert page_of(["caf\udce9"], 1, 1, 100).text == "     1→caf\ufffd"
