"""Text made fit to be read by a model: bounded lines, bounded length, nothing that a terminal would act upon."""

import re

LINE_CHARS = 2_000
NOTE_CHARS = 60  # of the note that stands for the middle of a long text

ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\n\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def printable(output: str) -> str:
    """A terminal's text as it would look: no colours, a progress bar's last state only."""
    text = UNPRINTABLE.sub("", ESCAPES.sub("", output.replace("\r\n", "\n")))
    return "\n".join(_last_state(line) for line in text.split("\n"))


def _last_state(line: str) -> str:
    return line.rstrip("\r").rpartition("\r")[2]


def short_line(line: str, limit: int = LINE_CHARS) -> str:
    return line if len(line) <= limit else f"{line[:limit]}… [{len(line) - limit:,} more characters in this line]"


def short_lines(text: str) -> str:
    return "\n".join(short_line(line) for line in text.split("\n"))


def cut_middle(text: str, limit: int, head_share: float, whole: str) -> str:
    """`text` if it fits into `limit` characters; else its two ends, cut between lines where lines are short.

    `whole` says where all of it is. The answer fits into `limit` too, as long as `whole` is short against it.
    """
    if len(text) <= limit:
        return text
    room = max(limit - len(whole) - NOTE_CHARS, 2)
    head_room = int(room * head_share)
    head = text[:head_room]
    tail = text[len(text) - room + head_room :]
    if (end := head.rfind("\n") + 1) * 2 >= len(head):
        head = head[:end]
    if (start := tail.find("\n") + 1) * 2 <= len(tail):
        tail = tail[start:]
    note = f"[… {len(text) - len(head) - len(tail):,} characters omitted; {whole} …]"
    return "\n".join([head.removesuffix("\n"), note, tail])


def size_text(size: int) -> str:
    if size < 1024:
        return f"{size} B"
    value, unit = size / 1024, "KiB"
    for larger in ("MiB", "GiB"):
        if value >= 1024:
            value, unit = value / 1024, larger
    return f"{value:.1f} {unit}"


def count_of(number: int, noun: str) -> str:
    """`1 line`, `1,200 lines`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
