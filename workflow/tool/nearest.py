"""Where old text that does not stand in a file almost stands, to show the model what it got wrong."""

from dataclasses import dataclass
from difflib import SequenceMatcher, get_close_matches

from workflow.tool.display import short_line

ALIKE = 0.6
COMPARED_CHARS = 400  # of a line: likeness is quadratic in length
COMPARED_LINES = 5_000  # of a file
CANDIDATES = 20
SHOWN_LINES = 30
SHOWN_CHARS = 300  # of a line


@dataclass(frozen=True, slots=True)
class Region:
    """Lines `first` (from 1) and following. `differs` is the number of the first line unlike the old text's."""

    first: int
    lines: list[str]
    likeness: float
    differs: int
    found: str
    wanted: str


def describe_nearest(lines: list[str], old: list[str]) -> str:
    """The closest text and how it differs, for the model; or that there is none."""
    region = nearest_region(lines, old)
    if region is None:
        return "Nothing in the file is like it. Read the file, and copy what you want to replace from there."
    last = region.first + len(region.lines) - 1
    shown = [
        f"{number:>6}→{short_line(line, SHOWN_CHARS)}"
        for number, line in enumerate(region.lines[:SHOWN_LINES], region.first)
    ]
    return "\n".join(
        [
            f"The closest text is lines {region.first}-{last}:",
            *shown,
            *(["     …"] if len(region.lines) > SHOWN_LINES else []),
            f"The first difference is in line {region.differs}:",
            f"  the file has    {short_line(region.found, SHOWN_CHARS)!r}",
            f"  old_string has  {short_line(region.wanted, SHOWN_CHARS)!r}",
        ]
    )


def nearest_region(lines: list[str], old: list[str]) -> Region | None:
    """The stretch of `lines` most like `old`, if it is at least `ALIKE`."""
    starts = _candidates(lines[:COMPARED_LINES], old)
    regions = [_region(lines, start, old) for start in starts]
    best = max(regions, key=lambda region: region.likeness, default=None)
    return best if best and best.likeness >= ALIKE else None


def _candidates(lines: list[str], old: list[str]) -> list[int]:
    """Where `old` would begin if its longest line were one of the file's lines most like it."""
    bare = [line.strip()[:COMPARED_CHARS] for line in lines]
    wanted = [line.strip()[:COMPARED_CHARS] for line in old]
    anchor = max(range(len(wanted)), key=lambda index: len(wanted[index]))
    close = set(get_close_matches(wanted[anchor], set(bare), n=5, cutoff=ALIKE))
    starts = [index - anchor for index, line in enumerate(bare) if line in close]
    return [start for start in starts if start >= 0][:CANDIDATES]


def _region(lines: list[str], start: int, old: list[str]) -> Region:
    found = lines[start : start + len(old)]
    likeness = SequenceMatcher(None, _compared(found), _compared(old)).ratio()
    offset = next((index for index, (have, want) in enumerate(zip(found, old, strict=False)) if have != want), 0)
    return Region(start + 1, found, likeness, start + 1 + offset, found[offset], old[offset])


def _compared(lines: list[str]) -> str:
    return "\n".join(line.strip()[:COMPARED_CHARS] for line in lines)[: 10 * COMPARED_CHARS]
