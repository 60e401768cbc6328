"""The simple commands of a shell line, for permissions: `a; b`, `a && b`, `$(a)`, `bash -c 'a'` are each told apart."""

import posixpath
from collections.abc import Iterator

from shared.permissions import Subject, options_of
from workflow.tool.shell_reader import Unreadable, Work, commands_of
from workflow.tool.shell_words import ASSIGNMENT, call_of, wraps

WORK_CHARS = 400_000
WORK_SHARE = 4  # as many times the line's length may be read beside


def subjects_of_line(line: str) -> list[Subject]:
    """Each simple command of a shell line. What cannot be read is one subject, `unclear`."""
    work = Work(WORK_CHARS + WORK_SHARE * len(line))
    try:
        return [_subject(words, work) for words in commands_of(line, 0, work)]
    except Unreadable:
        return [Subject((line,), unclear=True)]


def _subject(words: list[str], work: Work) -> Subject:
    calls = list(_calls(call_of(words), work))
    line = " ".join(words)
    # `lsx=1 rm` is no `ls*`: what an allow rule has to fit begins with a program.
    return Subject(
        (f"env {line}" if ASSIGNMENT.match(words[0]) else line,),
        (line, *(" ".join(call) for call in calls)),
        tuple(reading for call in calls for reading in _readings(call, work)),
    )


def _readings(call: list[str], work: Work) -> Iterator[tuple[frozenset[str], str]]:
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


def _calls(words: list[str], work: Work) -> Iterator[list[str]]:
    """The command and, behind a wrapper, what may be the command that it runs. Raises Unreadable."""
    chars = sum(map(len, words)) + len(words)
    for place, word in enumerate(words if wraps(words) else words[:1]):
        work.spend(chars)
        yield [posixpath.basename(word), *words[place + 1 :]]
        chars -= len(word) + 1
