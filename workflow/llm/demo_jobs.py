"""The small real jobs that the demo model knows: which one a task asks for, its files, and the command that does it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

PYTHON_FILE = re.compile(r"(?<![\w./-])[A-Za-z_][\w-]{0,60}\.py\b")
TEXT_FILE = re.compile(r"(?<![\w./-])[A-Za-z_][\w-]{0,60}\.(?:txt|md|csv|log)\b")
NUMBER = re.compile(r"(?<![\w.])\d{1,3}(?![\w.]*\w)")


@dataclass(frozen=True)
class Script:
    name: str
    asked_for: re.Pattern[str]
    number: int


SCRIPTS = (
    Script("fizzbuzz", re.compile(r"fizz[\s_-]*buzz", re.IGNORECASE), number=15),
    Script("fibonacci", re.compile(r"fibonacci", re.IGNORECASE), number=10),
    Script("primes", re.compile(r"\bprimes?\b", re.IGNORECASE), number=50),
)


@dataclass(frozen=True)
class Job:
    """`files`: their contents by name; the script is the first."""

    what: str
    files: Mapping[str, str]
    command: str

    @property
    def script(self) -> str:
        return next(iter(self.files))


def job_for(task: str) -> Job:
    """A number or a file name in the task is taken up. What the demo has no script for, it counts the words of."""
    named = PYTHON_FILE.search(task)
    for script in SCRIPTS:
        if script.asked_for.search(task):
            file = named[0] if named else f"{script.name}.py"
            number = int(found[0]) if (found := NUMBER.search(task)) else script.number
            return Job(f"a {script.name} script", {file: _source(script.name)}, f"python3 {file} {number}")
    return _word_count(task, named[0] if named else "word_count.py")


def _word_count(task: str, file: str) -> Job:
    command = f"python3 {file} task.txt"
    if (wanted := TEXT_FILE.search(task)) and wanted[0] != "task.txt":
        command += f" | tee {wanted[0]}"
    files = {file: _source("word_count"), "task.txt": f"{task.strip()}\n"}
    return Job("a script that counts the words of your task", files, command)


def _source(name: str) -> str:
    return resources.files("workflow.llm").joinpath("demo_scripts", f"{name}.py.txt").read_text("utf-8")
