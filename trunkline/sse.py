"""The wire format of server-sent events (HTML standard, section 9.2.6), read incrementally from bytes.

httpx's own `iter_lines` also breaks lines at U+2028 and U+0085, which may stand inside an event's JSON.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Frame:
    """One dispatched event. `id` is None where the frame itself had none."""

    event: str
    data: str
    id: str | None
    retry_ms: int | None


def frames(chunks: Iterable[bytes]) -> Iterator[Frame]:
    """A frame cut off by the end of the stream is dropped, as the standard says: it comes again after a resume."""
    lines: list[str] = []
    for line in _lines(chunks):
        if line:
            lines.append(line)
        else:
            frame = _frame(lines)
            lines = []
            if frame is not None:
                yield frame


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    buffer = b""
    for chunk in chunks:
        *complete, buffer = (buffer + chunk).split(b"\n")
        for line in complete:
            yield line.removesuffix(b"\r").decode("utf-8", "replace")


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
    retry_ms = int(retry) if retry.isdecimal() else None
    if not data and retry_ms is None:
        return None
    return Frame(fields.get("event", "message"), "\n".join(data), fields.get("id"), retry_ms)
