"""Takes a shell's text apart into simple commands, each as its words.

It reads the grammar as far as quoting, separators, redirections, substitutions and here documents go, and expands
nothing.
"""

import re
from dataclasses import dataclass, field
from itertools import dropwhile

from workflow.tool.shell_words import Redirection, given_texts, is_shell

MAX_DEPTH = 20
KEYWORDS = {
    *("!", "{", "}", "(", ")", "if", "then", "else", "elif", "fi"),
    *("do", "done", "while", "until", "case", "esac", "time", "coproc"),
}
HEREDOC = re.compile(r"<<(?!<)(-?)[ \t]*((?:'[^']*'|\"[^\"]*\"|\\.|[^\s;&|<>()'\"\\])+)", re.DOTALL)
QUOTES = re.compile(r"'([^']*)'|\"([^\"]*)\"|\\(.)", re.DOTALL)
REDIRECTION = re.compile(r"(?:&>>?|<<<|<>|<&|<|>>|>\||>&|>)[ \t]*")


class Unreadable(Exception):
    """A quote or a bracket that nobody closes, nesting without end, or too much work."""


@dataclass(slots=True)
class Work:
    """How many characters may still be read or kept: `eval` has a text read again, a wrapper has its end kept."""

    left: int

    def spend(self, chars: int) -> None:
        self.left -= chars
        if self.left < 0:
            raise Unreadable


def commands_of(text: str, depth: int, work: Work) -> list[list[str]]:
    """The words of each command in it, however deep. Raises Unreadable."""
    if depth > MAX_DEPTH:
        raise Unreadable
    work.spend(len(text))
    reader = _Reader(text, depth, work)
    reader.read()
    return reader.commands


@dataclass(slots=True)
class _Reader:
    text: str
    depth: int
    work: Work
    at: int = 0
    commands: list[list[str]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    word: list[str] | None = None
    kind: type[str] = str
    """Of the word."""
    line: int = 0
    """How many commands were read before it."""
    calculates: bool = False
    """Since a `((`, where `<<` shifts bits."""
    heredocs: list[tuple[str, bool, bool]] = field(default_factory=list)
    """Of the line so far: the delimiter, whether its tabs go, whether its text is expanded."""

    def read(self) -> None:
        while self.at < len(self.text):
            self._take(self.text[self.at])
        self._end_command()

    def _take(self, char: str) -> None:
        if char in " \t":
            self._end_word()
            self.at += 1
        elif char in "'\"\\`$":
            self._quoted(char)
        elif char == "#" and self.word is None:
            self._skip_comment()
        elif char == "<" and not self.calculates and (known := HEREDOC.match(self.text, self.at)):
            self._begin_heredoc(known)
        elif known := REDIRECTION.match(self.text, self.at):
            self._redirect(known[0])
        elif char in "\n;|()&":
            self._calculate(char)
            self._separate(char)
        else:
            self._add(char)
            self.at += 1

    def _quoted(self, char: str) -> None:
        match char:
            case "'":
                end = self._find("'", self.at + 1)
                self._add(self.text[self.at + 1 : end])
                self.at = end + 1
            case "\\":
                if self.text[self.at + 1 : self.at + 2] != "\n":
                    self._add(self.text[self.at + 1 : self.at + 2])
                self.at += 2
            case '"':
                self._double()
            case "`":
                self._backticks()
            case _:
                self._dollar()

    def _double(self) -> None:
        self._add("")
        self.at += 1
        while (char := self._here()) != '"':
            if char == "\\":
                self._add(self.text[self.at + 1 : self.at + 2])
                self.at += 2
            elif char == "`":
                self._backticks()
            elif char == "$":
                self._dollar(quoted=True)
            else:
                self._add(char)
                self.at += 1
        self.at += 1

    def _dollar(self, *, quoted: bool = False) -> None:
        following = self.text[self.at + 1 : self.at + 2]
        if following == "(":
            start = self.at + 2
            self.at = self._substitution(start)
            self._add(f"$({self.text[start : self.at]})")
            self.at += 1
        elif following == "'" and not quoted:
            self.at += 2
            while (char := self._here()) != "'":
                taken = 2 if char == "\\" else 1
                self._add(_unescaped(self.text[self.at : self.at + taken]))
                self.at += taken
            self.at += 1
        else:
            self._add("" if following == '"' and not quoted else "$")
            self.at += 1

    def _backticks(self) -> None:
        end = self._find("`", self.at + 1)
        while self.text[end - 1] == "\\":
            end = self._find("`", end + 1)
        inside = self.text[self.at + 1 : end]
        self.commands += commands_of(inside.replace("\\`", "`"), self.depth + 1, self.work)
        self._add(f"$({inside})")
        self.at = end + 1

    def _substitution(self, start: int) -> int:
        """Reads the commands of a `$(` that was opened before `start`. Returns where it closes."""
        if self.depth >= MAX_DEPTH:
            raise Unreadable
        inside = _Reader(self.text, self.depth + 1, self.work, at=start)
        open_brackets = 1
        while True:
            char = inside._here()
            open_brackets += {"(": 1, ")": -1}.get(char, 0)
            if not open_brackets:
                break
            inside._take(char)
        inside._end_command()
        self.commands += inside.commands
        return inside.at

    def _redirect(self, operator: str) -> None:
        """What follows is its word: no part of the command."""
        number = "".join(self.word or ())
        if number.isdigit():
            self.word = None
        self._end_word()
        self.word, self.kind = [number if number.isdigit() else "", operator], Redirection
        self.at += len(operator)

    def _begin_heredoc(self, known: re.Match[str]) -> None:
        """Raises Unreadable for a delimiter that shells disagree about."""
        self._end_word()
        dash, written = known.groups()
        if "$" in written or "`" in written:
            raise Unreadable
        delimiter = QUOTES.sub(lambda quoted: "".join(filter(None, quoted.groups())), written)
        self.heredocs.append((delimiter, bool(dash), not QUOTES.search(written)))
        self.at = known.end()

    def _calculate(self, char: str) -> None:
        both = self.text[self.at : self.at + 2]
        if both == "((" and not self.words and self.word is None:
            self.calculates = True
        elif both == "))":
            self.calculates = False

    def _separate(self, char: str) -> None:
        self._end_command()
        self.at += 1
        if char != "\n":
            return
        shell = any(map(is_shell, self.commands[self.line :])) if self.heredocs else False
        self.line = len(self.commands)
        for delimiter, dash, expanded in self.heredocs:
            self._read_heredoc(delimiter, dash=dash, expanded=expanded, shell=shell)
        self.heredocs = []

    def _read_heredoc(self, delimiter: str, *, dash: bool, expanded: bool, shell: bool) -> None:
        body: list[str] = []
        pieces: list[str] = []  # of a line that goes on in the next
        while self.at < len(self.text):
            end = self.text.find("\n", self.at)
            line = self.text[self.at : end if end >= 0 else len(self.text)]
            self.at = end + 1 if end >= 0 else len(self.text)
            pieces.append(line)
            if expanded and (len(line) - len(line.rstrip("\\"))) % 2:
                pieces[-1] = line[:-1]
                continue
            line, pieces = "".join(pieces), []
            if (line.lstrip("\t") if dash else line) == delimiter:
                break
            body.append(line)
        text = "\n".join([*body, *pieces])
        if shell:
            self.commands += commands_of(text, self.depth + 1, self.work)
        elif expanded and ("$(" in text or "`" in text):
            quoted = text.replace('"', '\\"')
            found = commands_of(f': "{quoted}"', self.depth + 1, self.work)
            self.commands += [words for words in found if words[0] != ":"]

    def _skip_comment(self) -> None:
        end = self.text.find("\n", self.at)
        self.at = end if end >= 0 else len(self.text)

    def _here(self) -> str:
        if self.at >= len(self.text):
            raise Unreadable
        return self.text[self.at]

    def _find(self, char: str, start: int) -> int:
        end = self.text.find(char, start)
        if end < 0:
            raise Unreadable
        return end

    def _add(self, text: str) -> None:
        if self.word is None:
            self.word = []
        self.word.append(text)

    def _end_word(self) -> None:
        if self.word is not None:
            self.words.append(self.kind("".join(self.word)))
            self.word, self.kind = None, str

    def _end_command(self) -> None:
        self._end_word()
        words = list(dropwhile(KEYWORDS.__contains__, self.words))
        self.words = []
        if words[:1] == ["function"]:
            words = list(dropwhile(KEYWORDS.__contains__, words[2:]))
        if not words:
            return
        self.commands.append(words)
        for text in given_texts(words):
            self.commands += commands_of(text, self.depth + 1, self.work)


def _unescaped(text: str) -> str:
    return {"\\n": "\n", "\\t": "\t"}.get(text, text[-1])
