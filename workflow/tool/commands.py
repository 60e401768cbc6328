"""The simple commands of a shell line, for permissions: `a; b`, `a && b`, `$(a)`, `bash -c 'a'` are each told apart.

It reads the shell's grammar as far as quoting, separators, redirections, substitutions and here documents go, and
expands nothing.
"""

import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import dropwhile, pairwise

from shared.permissions import Subject, options_of

MAX_DEPTH = 20
WORK_CHARS = 400_000
WORK_SHARE = 4  # as many times the line's length may be read beside
KEYWORDS = {
    *("!", "{", "}", "(", ")", "if", "then", "else", "elif", "fi"),
    *("do", "done", "while", "until", "case", "esac", "time", "coproc"),
}
WRAPPERS = {
    *("sudo", "doas", "env", "command", "builtin", "exec", "nohup", "time", "nice", "ionice", "timeout", "stdbuf"),
    *("setsid", "xargs", "parallel", "busybox", "watch", "find", "chroot", "unshare", "nsenter", "flock", "strace"),
    *("runuser", "setpriv", "taskset", "chrt", "prlimit", "setarch"),
}
"""They run a command that is among their words."""
SHELLS = {"sh", "bash", "dash", "zsh", "ksh", "ash", "su", "runuser", "script"}
"""They run the text behind `-c`, and what they are given to read."""
TEXT_OPTION = re.compile(r"-[A-Za-z]*c[A-Za-z]*")
VALUED_OPTIONS = {"-o", "+o", "-O", "+O"}
TEXT_WRAPPERS = {"env", "watch"}
"""They take apart a word with spaces in it."""
SPLIT_STRING = re.compile(r"-[A-Za-z]*S|--split-string=")
ASSIGNMENT = re.compile(r"[A-Za-z_]\w*\+?=")
HEREDOC = re.compile(r"<<(?!<)(-?)[ \t]*((?:'[^']*'|\"[^\"]*\"|\\.|[^\s;&|<>()'\"\\])+)", re.DOTALL)
QUOTES = re.compile(r"'([^']*)'|\"([^\"]*)\"|\\(.)", re.DOTALL)
REDIRECTION = re.compile(r"(?:&>>?|<<<|<>|<&|<|>>|>\||>&|>)[ \t]*")


class Unreadable(Exception):
    """A quote or a bracket that nobody closes, nesting without end, or too much work."""


class Redirection(str):
    """An operator and what it names, as they stand among a command's words."""

    __slots__ = ()

    @property
    def here_string(self) -> str | None:
        """What `<<<` gives the command to read."""
        before, operator, text = self.partition("<<<")
        return text.lstrip() if operator and not before.strip("0123456789") else None


@dataclass(slots=True)
class _Work:
    """How many characters may still be read or kept: `eval` has a text read again, a wrapper has its end kept."""

    left: int

    def spend(self, chars: int) -> None:
        self.left -= chars
        if self.left < 0:
            raise Unreadable


def subjects_of_line(line: str) -> list[Subject]:
    """Each simple command of a shell line. What cannot be read is one subject, `unclear`."""
    work = _Work(WORK_CHARS + WORK_SHARE * len(line))
    try:
        return [_subject(words, work) for words in _commands(line, 0, work)]
    except Unreadable:
        return [Subject((line,), unclear=True)]


def _subject(words: list[str], work: _Work) -> Subject:
    calls = list(_calls(_bare(words), work))
    line = " ".join(words)
    # `lsx=1 rm` is no `ls*`: what an allow rule has to fit begins with a program.
    return Subject(
        (f"env {line}" if ASSIGNMENT.match(words[0]) else line,),
        (line, *(" ".join(call) for call in calls)),
        tuple(reading for call in calls for reading in _readings(call, work)),
    )


def _readings(call: list[str], work: _Work) -> Iterator[tuple[frozenset[str], str]]:
    """The call without its options, behind those that come first (`git -C x push`), and for each absolute path alone.

    Raises Unreadable.
    """
    options, words = options_of(call)
    yield options, " ".join(words)
    for place in _places_behind_options(call):
        rest = call[place:]
        work.spend(sum(map(len, rest)) + len(rest))
        yield options, " ".join([call[0], *options_of(rest)[1]])
    for word in words[1:]:
        if word.startswith(("/", "~")):
            yield options, f"{call[0]} {word}"


def _places_behind_options(call: list[str]) -> Iterator[int]:
    """Where the call's first word may be that is no option: each option before it may have a value, or none."""
    for place in range(1, len(call)):
        if not call[place].startswith("-") and (place == 1 or not call[place - 1].startswith("-")):
            return
        yield place + 1


def _calls(words: list[str], work: _Work) -> Iterator[list[str]]:
    """The command and, behind a wrapper, what may be the command that it runs. Raises Unreadable."""
    chars = sum(map(len, words)) + len(words)
    for place, word in enumerate(words if _wraps(words) else words[:1]):
        work.spend(chars)
        yield [posixpath.basename(word), *words[place + 1 :]]
        chars -= len(word) + 1


def _wraps(words: Sequence[str]) -> bool:
    """What is expanded may come to nothing, and the next word is the program."""
    return bool(words) and (posixpath.basename(words[0]) in WRAPPERS or words[0].startswith("$"))


def _bare(words: Sequence[str]) -> list[str]:
    """Without redirections, and without the assignments in front."""
    return list(dropwhile(ASSIGNMENT.match, (word for word in words if not isinstance(word, Redirection))))


def _programs(bare: Sequence[str]) -> list[str]:
    """The name of the program, and behind a wrapper all that may be one."""
    return [posixpath.basename(word) for word in (bare if _wraps(bare) else bare[:1])]


def _is_shell(words: Sequence[str]) -> bool:
    return not SHELLS.isdisjoint(_programs(_bare(words)))


def _commands(text: str, depth: int, work: _Work) -> list[list[str]]:
    """The words of each command in it, however deep. Raises Unreadable."""
    if depth > MAX_DEPTH:
        raise Unreadable
    work.spend(len(text))
    reader = _Reader(text, depth, work)
    reader.read()
    return reader.commands


def _given_texts(words: Sequence[str]) -> Iterator[str]:
    """What it is to run, and is no command among its words."""
    bare = _bare(words)
    if (text := _text_of_shell(bare)) is not None:
        yield text
    if bare[:1] == ["trap"]:
        yield from [word for word in bare[1:] if not word.startswith("-")][:1]
    if not TEXT_WRAPPERS.isdisjoint(_programs(bare)):
        texts = (SPLIT_STRING.sub("", word, count=1) for word in bare if " " in word and not ASSIGNMENT.match(word))
        yield from texts
    if _is_shell(words):
        yield from (word.here_string for word in words if isinstance(word, Redirection) and word.here_string)


def _text_of_shell(bare: Sequence[str]) -> str | None:
    """What the first shell or `eval` that is given a text is to run."""
    names = _programs(bare)
    evals = names.index("eval") if "eval" in names else len(bare)
    shell = next((place for place, name in enumerate(names[:evals]) if name in SHELLS), len(bare))
    option = next((place for place in range(shell + 1, len(bare)) if TEXT_OPTION.fullmatch(bare[place])), len(bare))
    for before, word in pairwise(bare[option:]):
        if before not in VALUED_OPTIONS and not word.startswith(("-", "+")):
            return word
    return " ".join(bare[evals + 1 :]) if evals < len(bare) else None


@dataclass(slots=True)
class _Reader:
    text: str
    depth: int
    work: _Work
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
        self.commands += _commands(inside.replace("\\`", "`"), self.depth + 1, self.work)
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
        shell = any(map(_is_shell, self.commands[self.line :])) if self.heredocs else False
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
            self.commands += _commands(text, self.depth + 1, self.work)
        elif expanded and ("$(" in text or "`" in text):
            quoted = text.replace('"', '\\"')
            found = _commands(f': "{quoted}"', self.depth + 1, self.work)
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
        for text in _given_texts(words):
            self.commands += _commands(text, self.depth + 1, self.work)


def _unescaped(text: str) -> str:
    return {"\\n": "\n", "\\t": "\t"}.get(text, text[-1])
