"""What the words of a simple command mean: which is the program, and which are texts for a shell to run."""

import posixpath
import re
from collections.abc import Iterator, Sequence
from itertools import dropwhile, pairwise

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


class Redirection(str):
    """An operator and what it names, as they stand among a command's words."""

    __slots__ = ()

    @property
    def here_string(self) -> str | None:
        """What `<<<` gives the command to read."""
        before, operator, text = self.partition("<<<")
        return text.lstrip() if operator and not before.strip("0123456789") else None


def wraps(words: Sequence[str]) -> bool:
    """What is expanded may come to nothing, and the next word is the program."""
    return bool(words) and (posixpath.basename(words[0]) in WRAPPERS or words[0].startswith("$"))


def call_of(words: Sequence[str]) -> list[str]:
    """Without redirections, and without the assignments in front."""
    return list(dropwhile(ASSIGNMENT.match, (word for word in words if not isinstance(word, Redirection))))


def programs(call: Sequence[str]) -> list[str]:
    """The name of the program, and behind a wrapper all that may be one."""
    return [posixpath.basename(word) for word in (call if wraps(call) else call[:1])]


def is_shell(words: Sequence[str]) -> bool:
    return not SHELLS.isdisjoint(programs(call_of(words)))


def given_texts(words: Sequence[str]) -> Iterator[str]:
    """What it is to run, and is no command among its words."""
    call = call_of(words)
    if (text := _text_of_shell(call)) is not None:
        yield text
    if call[:1] == ["trap"]:
        yield from [word for word in call[1:] if not word.startswith("-")][:1]
    if not TEXT_WRAPPERS.isdisjoint(programs(call)):
        texts = (SPLIT_STRING.sub("", word, count=1) for word in call if " " in word and not ASSIGNMENT.match(word))
        yield from texts
    if is_shell(words):
        yield from (word.here_string for word in words if isinstance(word, Redirection) and word.here_string)


def _text_of_shell(call: Sequence[str]) -> str | None:
    """What the first shell or `eval` that is given a text is to run."""
    names = programs(call)
    evals = names.index("eval") if "eval" in names else len(call)
    shell = next((place for place, name in enumerate(names[:evals]) if name in SHELLS), len(call))
    option = next((place for place in range(shell + 1, len(call)) if TEXT_OPTION.fullmatch(call[place])), len(call))
    for before, word in pairwise(call[option:]):
        if before not in VALUED_OPTIONS and not word.startswith(("-", "+")):
            return word
    return " ".join(call[evals + 1 :]) if evals < len(call) else None
