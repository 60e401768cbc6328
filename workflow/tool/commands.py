"""The simple commands of a shell line, for permissions: `a; b`, `a && b`, `$(a)`, `bash -c 'a'` are each told apart.

It reads the shell's grammar as far as quoting, separators, substitutions and here documents go, and expands nothing.
"""

import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from shared.permissions import Subject, options_of

MAX_DEPTH = 20
KEYWORDS = {
    *("!", "{", "}", "(", ")", "if", "then", "else", "elif", "fi"),
    *("do", "done", "while", "until", "case", "esac", "time", "coproc"),
}
WRAPPERS = {
    *("sudo", "doas", "env", "command", "builtin", "exec", "nohup", "time", "nice", "ionice", "timeout", "stdbuf"),
    *("setsid", "xargs", "parallel", "busybox", "watch", "find", "chroot", "unshare", "flock", "strace"),
}
"""They run a command that is among their words."""
SHELLS = {"sh", "bash", "dash", "zsh", "ksh", "ash"}
SHELL_TEXT = re.compile(r"-[a-z]*c")
ASSIGNMENT = re.compile(r"[A-Za-z_]\w*\+?=")
HEREDOC = re.compile(r"<<(-?)[ \t]*(?:'([^'\n]*)'|\"([^\"\n]*)\"|(\\?)([^\s;&|<>()]+))")


class Unreadable(Exception):
    """A quote or a bracket that nobody closes, or nesting without end."""


def subjects_of_line(line: str) -> list[Subject]:
    """Each simple command of a shell line. What cannot be read is one subject, `unclear`."""
    try:
        return [_subject(words) for words in _commands(line, 0)]
    except Unreadable:
        return [Subject((line,), unclear=True)]


def _subject(words: list[str]) -> Subject:
    bare = _without_assignments(words)
    calls = [[posixpath.basename(bare[0]), *bare[1:]]] if bare else []
    if calls and calls[0][0] in WRAPPERS:
        calls += [[posixpath.basename(bare[i]), *bare[i + 1 :]] for i in range(1, len(bare))]
    split = [options_of(call) for call in calls]
    return Subject(
        (" ".join(words),),
        tuple(" ".join(call) for call in calls),
        tuple((options, " ".join(rest)) for options, rest in split),
    )


def _without_assignments(words: Sequence[str]) -> list[str]:
    first = next((i for i, word in enumerate(words) if not ASSIGNMENT.match(word)), len(words))
    return list(words[first:])


def _commands(text: str, depth: int) -> list[list[str]]:
    """The words of each command in it, however deep. Raises Unreadable."""
    if depth > MAX_DEPTH:
        raise Unreadable
    reader = _Reader(text, depth)
    reader.read()
    return reader.commands


def _inner(words: list[str], depth: int) -> list[list[str]]:
    """The commands in the text that a shell or `eval` among the words is given."""
    bare = _without_assignments(words)
    wrapped = bool(bare) and posixpath.basename(bare[0]) in WRAPPERS
    found: list[list[str]] = []
    for place, word in enumerate(bare if wrapped else bare[:1]):
        name, after = posixpath.basename(word), bare[place + 1 :]
        if name == "eval":
            found += _commands(" ".join(after), depth + 1)
        elif name in SHELLS:
            option = next((i for i, each in enumerate(after) if SHELL_TEXT.fullmatch(each)), len(after))
            found += [command for text in after[option + 1 : option + 2] for command in _commands(text, depth + 1)]
    return found


@dataclass(slots=True)
class _Reader:
    text: str
    depth: int
    at: int = 0
    commands: list[list[str]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    word: list[str] | None = None
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
        elif char in "\n;|()" or (char == "&" and not self._redirects()):
            self._separate(char)
        elif char == "<" and (known := HEREDOC.match(self.text, self.at)) and self.text[self.at + 2] != "<":
            self._begin_heredoc(known)
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
        self.commands += _commands(inside.replace("\\`", "`"), self.depth + 1)
        self._add(f"$({inside})")
        self.at = end + 1

    def _substitution(self, start: int) -> int:
        """Reads the commands of a `$(` that was opened before `start`. Returns where it closes."""
        if self.depth >= MAX_DEPTH:
            raise Unreadable
        inside = _Reader(self.text, self.depth + 1, at=start)
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

    def _redirects(self) -> bool:
        """Whether an `&` is part of `>&`, `<&` or `&>`."""
        return self.text[self.at - 1 : self.at] in ("<", ">") or self.text[self.at + 1 : self.at + 2] == ">"

    def _begin_heredoc(self, known: re.Match[str]) -> None:
        self._end_word()
        dash, single, double, escaped, plain = known.groups()
        delimiter = next(text for text in (single, double, plain) if text is not None)
        self.heredocs.append((delimiter, bool(dash), plain is not None and not escaped))
        self.at = known.end()

    def _separate(self, char: str) -> None:
        shell = bool(self.words) and posixpath.basename(self.words[0]) in SHELLS
        self._end_command()
        self.at += 1
        if char != "\n":
            return
        for delimiter, dash, expanded in self.heredocs:
            self._read_heredoc(delimiter, dash=dash, expanded=expanded, shell=shell)
        self.heredocs = []

    def _read_heredoc(self, delimiter: str, *, dash: bool, expanded: bool, shell: bool) -> None:
        body: list[str] = []
        while self.at < len(self.text):
            end = self.text.find("\n", self.at)
            line = self.text[self.at : end if end >= 0 else len(self.text)]
            self.at = end + 1 if end >= 0 else len(self.text)
            if (line.lstrip("\t") if dash else line) == delimiter:
                break
            body.append(line)
        text = "\n".join(body)
        if shell:
            self.commands += _commands(text, self.depth + 1)
        elif expanded and ("$(" in text or "`" in text):
            quoted = text.replace('"', '\\"')
            self.commands += [words for words in _commands(f': "{quoted}"', self.depth + 1) if words[0] != ":"]

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
            self.words.append("".join(self.word))
            self.word = None

    def _end_command(self) -> None:
        self._end_word()
        while self.words and self.words[0] in KEYWORDS:
            self.words.pop(0)
        if self.words:
            self.commands.append(self.words)
            self.commands += _inner(self.words, self.depth)
            self.words = []


def _unescaped(text: str) -> str:
    return {"\\n": "\n", "\\t": "\t"}.get(text, text[-1])
