"""Secrets taken out of what others say."""

import re
from collections.abc import Iterable, Iterator

MASK = "****"
SHORT = {
    **{'"': r"\\\"", "\\": r"\\\\", "/": r"\\/", "\n": r"\\n", "\r": r"\\r", "\t": r"\\t"},
    " ": r"\+",  # in queries
}


class Masks:
    """Knows its secrets however a server may write them back: as they are, percent-encoded, or as in JSON."""

    def __init__(self, secrets: Iterable[str]) -> None:
        longest_first = sorted(secrets, key=len, reverse=True)  # one may begin as another
        self._patterns = [re.compile("".join(map(_spelled, secret))) for secret in longest_first]

    def masked(self, text: str) -> str:
        for pattern in self._patterns:
            text = pattern.sub(MASK, text)
        return text


def _spelled(char: str) -> str:
    return f"(?:{'|'.join(_spellings(char))})"


def _spellings(char: str) -> Iterator[str]:
    yield re.escape(char)
    yield "".join(f"%{_hex(byte)}" for byte in _pieces(char.encode(errors="surrogateescape").hex(), 2))
    yield "".join(rf"\\u{_hex(unit)}" for unit in _pieces(char.encode("utf-16-be", "surrogatepass").hex(), 4))
    if char in SHORT:
        yield SHORT[char]


def _pieces(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


def _hex(digits: str) -> str:
    """A pattern of them in upper and lower case."""
    return "".join(f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in digits)
