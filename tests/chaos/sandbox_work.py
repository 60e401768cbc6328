"""What runs do in their sandboxes while workers are killed, and what the sandboxes' files tell of it afterwards.

A command writes into a file when it begins and when it ends: a ledger that knows how often it really ran.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from shared.threads.steps import StepRecord
from shared.types import StepStatus
from tests.workflow.support import turn
from workflow.llm.types import ModelResponse
from workflow.sandbox.base import FileMissing, Sandbox

ROUNDS = 5
LEDGER = "/workspace/ledger"
RESTARTED = "The sandbox was restarted since you last used it"


def book() -> list[ModelResponse]:
    """The model's turns: a command, a file written and edited, a task in the background and the wait for it."""
    turns = [call for number in range(ROUNDS) for call in _round(number)]
    return [*turns, turn("Done.")]


def _round(number: int) -> list[ModelResponse]:
    path = f"file-{number}"
    return [
        _call(f"bash-{number}", "bash", command=_command(f"bash-{number}", 0.05)),
        _call(f"write-{number}", "write_files", files=[{"file_path": path, "content": "one\n"}]),
        _call(f"edit-{number}", "edit_file", file_path=path, old_string="one", new_string="one two"),
        _call(f"task-{number}", "bash", command=_command(f"task-{number}", 0.1), run_in_background=True),
        _call(f"wait-{number}", "bash_output", task_id=f"bg_{number + 1}", block=True),
    ]


def _call(name: str, tool: str, **arguments: object) -> ModelResponse:
    return turn("", (name, tool, json.dumps(arguments)))


def _command(name: str, seconds: float) -> str:
    return f"echo begin {name} >> {LEDGER}; sleep {seconds}; echo end {name} >> {LEDGER}"


@dataclass(frozen=True, slots=True)
class Left:
    """What a run left in its sandbox: how often each line stands in the ledger, and the files it wrote."""

    ledger: Counter[str]
    files: Mapping[str, str | None]

    @classmethod
    async def of(cls, sandbox: Sandbox) -> "Left":
        files = {f"file-{number}": await _text(sandbox, f"file-{number}") for number in range(ROUNDS)}
        return cls(Counter((await _text(sandbox, LEDGER) or "").splitlines()), files)


async def _text(sandbox: Sandbox, path: str) -> str | None:
    try:
        return (await sandbox.read(path)).content.decode()
    except FileMissing:
        return None


def judge(left: Left, steps: list[StepRecord]) -> Counter[str]:
    """`announced`: commands of which the model was told that nobody knows their outcome."""
    unknown = {step.key.removeprefix("tool:") for step in steps if step.status is StepStatus.UNKNOWN}
    found = Counter[str]()
    found["calls found in flight"] = sum(step.kind == "tool" and step.tries > 1 for step in steps)
    found["told of a restart"] = sum(RESTARTED in json.dumps(step.result) for step in steps)
    for number in range(ROUNDS):
        for name, ends in ((f"bash-{number}", True), (f"task-{number}", False)):
            found += _of_command(left, name, announced=name in unknown, ends=ends)
        content = left.files[f"file-{number}"]
        found["files"] += content is not None
        found["files lost or damaged"] += content not in _allowed(number, unknown)
    return found


def _of_command(left: Left, name: str, *, announced: bool, ends: bool) -> Counter[str]:
    """`ends`: a task in the background may be ended by what befalls its sandbox, and the model is told."""
    begun, ended = left.ledger[f"begin {name}"], left.ledger[f"end {name}"]
    done = ended if ends else begun
    return Counter(
        {
            "commands": begun,
            "announced": announced,
            "repeats": begun > 1,
            "unannounced repeats": begun > 1 + announced,
            "said to be done and not": done == 0 and not announced,
        }
    )


def _allowed(number: int, unknown: set[str]) -> set[str | None]:
    """What a file may hold: both calls are done, but for one that nobody claims to know of."""
    allowed: set[str | None] = {"one two\n"}
    if f"edit-{number}" in unknown:
        allowed.add("one\n")
    if f"write-{number}" in unknown:
        allowed.add(None)
    return allowed
