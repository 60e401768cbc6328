"""Bytes that a command wrote, as text: cut in the middle where they are too many, never inside a character.

Runs on both sides: standard library only, nothing newer than Python 3.9.
"""

from __future__ import annotations

import codecs

TYPE_CHECKING = False  # importing typing would cost every cold start 4 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

HEAD_SHARE = 0.4  # of the text shown: what a command says at its end matters more


def cut(read: Callable[[int, int], tuple[bytes, int]], total: int, kept: int, chars: int) -> dict[str, Any]:
    """The fields of an Output of at most `chars` characters. `read(offset, limit)` gives bytes and where they begin."""
    window = 4 * chars  # bytes: UTF-8 has at most four for a character
    if total == kept <= window:
        text = _read_all(read, total).decode(errors="replace")
        if len(text) <= chars:
            return {"head": text}
    first, _ = read(0, window)
    last, _ = read(max(0, total - window), window)
    head = _decode_start(first)[: int(chars * HEAD_SHARE)]
    tail = last.decode(errors="replace")[-(chars - len(head)) :]
    omitted = total - len(head.encode()) - len(tail.encode())
    return {"head": head, "tail": tail, "omitted_bytes": max(1, omitted), "cut_line": head.count("\n") + 1}


def _read_all(read: Callable[[int, int], tuple[bytes, int]], total: int) -> bytes:
    data = b""
    while len(data) < total:
        piece, _ = read(len(data), total - len(data))
        if not piece:
            break
        data += piece
    return data


def _decode_start(data: bytes) -> str:
    """Text of bytes that may end in the middle of a character: that one is left out."""
    return codecs.getincrementaldecoder("utf-8")(errors="replace").decode(data)


def whole_characters(data: bytes) -> int:
    """How many of the bytes come before a character that is cut at the end."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    decoder.decode(data)
    return len(data) - len(decoder.getstate()[0])
