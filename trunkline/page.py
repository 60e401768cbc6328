"""Where progress is printed: streamed text wrapped at words, blank lines between sections, a spinner in between."""

import re

from rich.cells import cell_len
from rich.console import Console
from rich.status import Status
from rich.text import Text

PIECES = re.compile(r"\n|[^\S\n]+|\S+")
LONGEST_WORD = 30  # a longer one is shown before its end is known: many scripts have no spaces


class Page:
    """Only a terminal has a width and a spinner; in a pipe or a file, lines are as long as they are."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status: Status | None = None
        self._section = ""
        self._column = 0
        self._word = ""  # of streamed text, not shown yet, for it may go on
        self._style = ""

    def begin(self, section: str) -> None:
        """What follows belongs to this section; a new one is set off by a blank line."""
        if section == self._section:
            return
        self._fresh_line()
        if self._section:
            self._console.print()
        self._section = section

    def stream(self, text: str, style: str = "") -> None:
        """Text that goes on where the last one ended."""
        self._hush()
        if style != self._style:
            self._end_word()
            self._style = style
        pieces = PIECES.findall(self._word + text)
        self._word = ""
        if pieces and not pieces[-1].isspace() and len(pieces[-1]) < LONGEST_WORD and self._console.is_terminal:
            self._word = pieces.pop()
        for piece in pieces:
            self._place(piece)

    def line(self, text: Text, *, whole: bool = False) -> None:
        """`whole`: not broken by us, so that what is in it can be copied from a terminal."""
        self._fresh_line()
        self._console.print(text, soft_wrap=whole or not self._console.is_terminal)

    def wait(self, what: str) -> None:
        """A spinner, which goes with the next line."""
        if self._console.is_terminal:
            self._fresh_line()
            self._status = self._console.status(Text(what, "dim"), spinner_style="dim")
            self._status.start()

    def close(self) -> None:
        """Nothing is left moving, and the next line is a new one."""
        self._fresh_line()

    def _fresh_line(self) -> None:
        self._hush()
        self._end_word()
        if self._column:
            self._console.print()
            self._column = 0

    def _end_word(self) -> None:
        word, self._word = self._word, ""
        if word:
            self._place(word)

    def _place(self, piece: str) -> None:
        size = cell_len(piece)
        overflows = self._console.is_terminal and self._column > 0 and self._column + size > self._console.width
        if piece == "\n" or overflows:
            self._console.print()
            self._column = 0
        if piece == "\n" or (overflows and piece.isspace()):
            return
        self._console.print(Text(piece, self._style), end="", soft_wrap=True)
        self._column += size

    def _hush(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None
