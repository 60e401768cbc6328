"""The wire format of server-sent events (HTML standard, section 9.2.6), fed with bytes. Does no I/O.

httpx's own `iter_lines` also breaks lines at U+2028 and U+0085, which may stand inside an event's JSON.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Frame:
    """One dispatched event. `id` is None where the frame itself had none."""

    event: str
    data: str
    id: str | None
    retry_ms: int | None


class Decoder:
    """Bytes in, however they are cut; frames out. What a cut leaves unfinished is no frame: it comes again later."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []  # of a line whose end has not come
        self._started = False
        self._held = False
        self._lines: list[str] = []

    def feed(self, chunk: bytes) -> Iterator[Frame]:
        """To be read to its end before the next chunk."""
        for line in self._whole_lines(chunk):
            if line:
                self._lines.append(line)
                continue
            frame = _frame(self._lines)
            self._lines = []
            if frame is not None:
                yield frame

    def _whole_lines(self, chunk: bytes) -> list[str]:
        self._pieces.append(chunk)
        if self._started and not (self._held or b"\n" in chunk or b"\r" in chunk):
            return []
        text = b"".join(self._pieces)
        if not self._started:
            if len(text) < len(_BOM) and _BOM.startswith(text):
                return []
            self._started, text = True, text.removeprefix(_BOM)
        self._held = text.endswith(b"\r")  # the line feed that belongs to it may come next
        *lines, rest = _LINE_END.split(text[:-1] if self._held else text)
        self._pieces = [rest + b"\r" if self._held else rest]
        return [line.decode("utf-8", "replace") for line in lines]


def _frame(lines: list[str]) -> Frame | None:
    fields: dict[str, str] = {}
    data: list[str] = []
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
        elif name:
            fields[name] = value
    retry = fields.get("retry", "")
    retry_ms = int(retry) if retry.isascii() and retry.isdecimal() else None
    if not data and retry_ms is None:
        return None
    return Frame(fields.get("event") or "message", "\n".join(data), fields.get("id"), retry_ms)
