"""What is text, how it is split into lines, and how a model's paths are meant."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow.tool.content import Text, binary_kind, lines_of, readable
from workflow.tool.paths import resolve


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\x89PNG\r\n\x1a\n\x00\x00", "PNG image"),
        (b"%PDF-1.7\n", "PDF document"),
        (b"GIF89a\x01\x00", "GIF image"),
        (b"GIF8 is how a GIF begins\n", None),
        ("ä".encode("utf-16"), "UTF-16 text"),
        (b"\x7fELF\x02", "ELF program"),
        (b"a\x00b", "binary file"),
        ("päper\n".encode("latin-1"), None),
        (b"", None),
        (b"print(1)\n", None),
    ],
)
def test_binary_files_are_told_by_their_beginning(content: bytes, kind: str | None) -> None:
    assert binary_kind(content) == kind


def test_only_line_feeds_end_lines() -> None:
    assert lines_of("a\r\nb\x0bc\u2028d\x0ce\n\nf") == ["a", "b\x0bc\u2028d\x0ce", "", "f"]
    assert lines_of("") == []
    assert lines_of("\n") == [""]
    assert lines_of("a\n") == lines_of("a") == ["a"]


def test_the_byte_order_mark_is_no_part_of_the_text() -> None:
    assert Text.decode(b"\xef\xbb\xbfa") == Text("a", bom=True)
    assert Text.decode("a\ufeff".encode()) == Text("a\ufeff", bom=False)


@given(st.binary())
def test_any_bytes_can_be_shown(content: bytes) -> None:
    shown = readable(Text.decode(content).text)
    shown.encode("utf-8")
    assert shown == content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")


@pytest.mark.parametrize(
    ("path", "absolute"),
    [
        ("a.py", "/workspace/a.py"),
        ("./src/../a.py", "/workspace/a.py"),
        ("/etc/passwd", "/etc/passwd"),
        ("../etc", "/etc"),
        ("../../../..", "/"),
        ("//tmp//x/", "/tmp/x"),
        (" a.py\n", "/workspace/a.py"),
        (".", "/workspace"),
        ("", "/workspace"),
    ],
)
def test_paths_are_absolute_or_relative_to_the_workspace(path: str, absolute: str) -> None:
    assert resolve(path) == absolute
