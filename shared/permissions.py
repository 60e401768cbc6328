"""Which calls are made, asked about, or refused: rules such as `bash: deny rm -rf /*`.

The last rule of a list that fits a call decides it; of several lists (the configuration's, a run's) the strictest
answer holds, so that a run can forbid more than the configuration, and never less. What no rule fits is allowed.

Rules keep a well-meaning model from a mistake. They are no sandbox: a command can always be written so that no pattern
knows it.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Self

OPTIONS = re.compile(r"-[A-Za-z]+")
LONG_OPTIONS = {"--recursive": "-r", "--force": "-f"}
SAME_LETTERS = str.maketrans("R", "r")
RULE = re.compile(
    r"\s*(?P<tool>[\w*?.-]+)\s*:\s*(?P<action>allow|ask|deny)(?:\s+(?P<pattern>\S.*?))?\s*", re.ASCII | re.DOTALL
)


class Action(IntEnum):
    """The stricter, the greater."""

    ALLOW = 0
    ASK = 1
    DENY = 2


@dataclass(frozen=True, slots=True)
class Subject:
    """One thing that a call is about, as `texts` that say it in full.

    `spellings` are looser ways to say it, and `commands` of a shell command: its one-letter options, and its words
    without them. An `allow` has to fit one of the texts; an `ask` or a `deny` fits whatever it can. What is `unclear`
    (a command that nobody can read) is treated as the strictest of the tool's rules says.
    """

    texts: tuple[str, ...]
    spellings: tuple[str, ...] = ()
    commands: tuple[tuple[frozenset[str], str], ...] = ()
    unclear: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """`tool` and `pattern` are globs, where `*` stands for anything. Without a pattern it fits every call."""

    tool: str
    action: Action
    pattern: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError."""
        known = RULE.fullmatch(text)
        if known is None:
            raise ValueError(f"{text!r} is no rule; write TOOL: allow|ask|deny [PATTERN], as in 'bash: ask git push*'")
        return cls(known["tool"], Action[known["action"].upper()], known["pattern"])

    def __str__(self) -> str:
        return f"{self.tool}: {self.action.name.lower()} {self.pattern or ''}".strip()

    def fits(self, subject: Subject) -> bool:
        if self.pattern is None:
            return True
        if self.action is Action.ALLOW:
            return _matches(self.pattern, subject.texts)
        if _matches(self.pattern, (*subject.texts, *subject.spellings)):
            return True
        options, words = options_of(self.pattern.split())
        return any(options <= given and _matches(" ".join(words), (text,)) for given, text in subject.commands)


def options_of(words: Sequence[str]) -> tuple[frozenset[str], list[str]]:
    """The one-letter options among a command's words, however they are bundled, and the other words."""
    bundles = [LONG_OPTIONS.get(word, word) for word in words]
    options = {letter for word in bundles if OPTIONS.fullmatch(word) for letter in word[1:].translate(SAME_LETTERS)}
    return frozenset(options), [word for word in bundles if word != "--" and not OPTIONS.fullmatch(word)]


def _matches(pattern: str, texts: Iterable[str]) -> bool:
    return any(_fits(pattern, text) for text in texts)


def _fits(pattern: str, text: str) -> bool:
    """In time that grows with the text alone, since models write it: what is between two stars is looked for once."""
    first, *others = _pieces(pattern)
    if not others:
        return first.fullmatch(text) is not None
    found, at = first.match(text), 0
    for piece in others:
        if found is None:
            return False
        at = found.end()
        found = piece.search(text, at)
    last = len(text) - len(pattern.rpartition("*")[2])
    return last >= at and others[-1].fullmatch(text, last) is not None


@lru_cache(maxsize=1_000)
def _pieces(pattern: str) -> list[re.Pattern[str]]:
    """What stands between its stars."""
    pieces = pattern.split("*")
    return [re.compile("".join("." if c == "?" else re.escape(c) for c in piece), re.DOTALL) for piece in pieces]


@dataclass(frozen=True, slots=True)
class Permissions:
    """Lists of rules, each of which has its say."""

    lists: tuple[tuple[Rule, ...], ...] = ()

    @classmethod
    def of(cls, *lists: Iterable[str]) -> Self:
        """Raises ValueError for a text that is no rule."""
        return cls(tuple(tuple(Rule.parse(text) for text in rules) for rules in lists))

    def concern(self, tool: str) -> bool:
        """Whether any rule is for this tool."""
        return any(fnmatchcase(tool, rule.tool) for rules in self.lists for rule in rules)

    def rule(self, tool: str, subjects: Sequence[Subject]) -> Rule | None:
        """What decides a call of this tool about these subjects: the strictest for any of them. None: allowed."""
        decided = [
            _last([rule for rule in rules if fnmatchcase(tool, rule.tool)], subject)
            for rules in self.lists
            for subject in subjects or [Subject(())]
        ]
        return max(filter(None, decided), key=lambda rule: rule.action, default=None)


def _last(rules: Sequence[Rule], subject: Subject) -> Rule | None:
    if subject.unclear:
        return max(rules, key=lambda rule: rule.action, default=None)
    return next((rule for rule in reversed(rules) if rule.fits(subject)), None)
