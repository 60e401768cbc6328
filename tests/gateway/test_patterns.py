import sys

from gateway.patterns import is_blank

BYTE_ORDER_MARK = "\ufeff"


def test_blank_is_what_python_or_json_schema_takes_for_white_space() -> None:
    blank = [char for char in map(chr, range(sys.maxunicode + 1)) if is_blank(char)]
    assert set(blank) == {char for char in map(chr, range(sys.maxunicode + 1)) if char.isspace()} | {BYTE_ORDER_MARK}
    assert is_blank("")
    assert is_blank("\t\x1c\x85 ")
    assert not is_blank(" a ")
