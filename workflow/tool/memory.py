"""What a conversation's tool results tell later calls: the files the model was shown, the tasks it started, its plan.

Every result carries the little that it adds (`ToolResult.memory`), kept with its message. So any worker can build a
thread's memory again, and it goes back when the conversation does.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

from shared.types import JSON


@dataclass(frozen=True, slots=True)
class Seen:
    """A file as the model last knew it. `lines`: the range, from 1, that a read showed of this very content."""

    sha256: str
    lines: tuple[int, int] | None = None

    def shows(self, first: int, last: int) -> bool:
        return self.lines is not None and self.lines[0] <= first and last <= self.lines[1]


@dataclass(slots=True)
class Memory:
    """`files` by path, latest last. `changed`: hashes of them that the model was told of but has not seen.

    `tasks`: how far, in bytes, each background task's output was read; `ended` are those whose end the model knows of.
    """

    files: dict[str, Seen] = field(default_factory=dict)
    changed: dict[str, str | None] = field(default_factory=dict)
    tasks: dict[str, int] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    notices: set[str] = field(default_factory=set)
    """What the model was told of its sandbox's fate."""
    todos: list[JSON] = field(default_factory=list)
    plan: JSON | None = None

    @classmethod
    def of(cls, results: Iterable[JSON]) -> Self:
        """From the `memory` of every tool result of a conversation, in order."""
        memory = cls()
        for result in results:
            memory.learn(result)
        return memory

    def learn(self, result: JSON) -> None:
        """Adds one result's `memory`."""
        for path, seen in result.get("files", {}).items():
            lines = seen.get("lines")
            self.files.pop(path, None)
            self.files[path] = Seen(seen["sha256"], (lines[0], lines[1]) if lines else None)
            self.changed.pop(path, None)
        self.changed |= result.get("changed", {})
        self.tasks |= result.get("tasks", {})
        self.ended.update(result.get("ended", ()))
        self.notices.update(result.get("notices", ()))
        self.todos = result.get("todos", self.todos)
        self.plan = result.get("plan", self.plan)

    def running(self) -> set[str]:
        """Background tasks whose end the model has not been told."""
        return self.tasks.keys() - self.ended


def file_memory(path: str, sha256: str, lines: tuple[int, int] | None = None) -> JSON:
    """A result's memory: the model now knows this content of this file."""
    return {"files": {path: {"sha256": sha256} | ({"lines": list(lines)} if lines else {})}}
