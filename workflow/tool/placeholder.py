"""Finds the comment with which a model leaves out code that it means to keep: written, it would delete that code."""

import re

LINE_CHARS = 200  # a longer line is no such comment

_DOTS = r"(?:\.{3,}|…)"
_COMMENT = r"(?:#+|//+|/\*+|<!--|--|;+|%|\{/\*|\*|\"\"\"|''')"
_OPEN = rf"\s*{_COMMENT}?\s*[(\[<]?\s*"
_LEFT_OUT = r"(?:the |all )?(?:rest of|remaining|remainder of|other|existing|previous|unchanged|same as|omitted)\b"
_KEPT = (
    r".{0,40}?\b(?:code|file|contents?|implementation|methods?|functions?|class(?:es)?|imports?|lines?|logic|body"
    r"|tests?|markup|styles?|above|before|here|brevity|unchanged)\b"
)
_PLACEHOLDERS = (
    re.compile(rf"{_OPEN}{_DOTS}\s*[(\[]?\s*{_LEFT_OUT}{_KEPT}", re.IGNORECASE),
    re.compile(rf"{_OPEN}{_LEFT_OUT}{_KEPT}.{{0,40}}?{_DOTS}", re.IGNORECASE),
    re.compile(rf"\s*{_COMMENT}\s*{_LEFT_OUT}.{{0,40}}?\b(?:remain|stay)s?\b", re.IGNORECASE),
)


def find_placeholder(content: str, kept: str = "") -> tuple[int, str] | None:
    """The first such line of `content` as (number from 1, text). Lines that `kept` already has are meant literally."""
    known = {line.strip() for line in kept.split("\n")}
    for number, line in enumerate(content.split("\n"), 1):
        bare = line.strip()
        if 0 < len(bare) <= LINE_CHARS and bare not in known and any(p.match(bare) for p in _PLACEHOLDERS):
            return number, bare
    return None
