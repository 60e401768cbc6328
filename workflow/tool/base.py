"""What a tool is: written once against the sandbox protocol, judged by what a model makes of its answers.

What goes wrong inside a tool's own business (no such file, no match) is a value that the model reads. What the model
cannot mend (the sandbox is unreachable) is an exception.
"""

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict

from shared.errors import AppError, ErrorCode
from shared.links import PortLinks
from shared.permissions import Subject
from shared.types import JSON
from workflow.sandbox.base import MAX_WRITE_BYTES, Sandbox
from workflow.tool.arguments import parse_arguments
from workflow.tool.memory import Memory
from workflow.tool.schema import parameters_schema
from workflow.tool.subjects import subjects_of
from workflow.web.web import Web


class Effect(StrEnum):
    """What a second run of the same call would do."""

    REPEATABLE = "repeatable"
    """Nothing more: it only reads. Such calls of one turn run side by side."""
    IDEMPOTENT = "idempotent"
    """Nothing more, because the effect is told by its key."""
    NONE = "none"
    """Its effect again."""


class OutcomeUnknown(AppError):
    """A call was in flight at a crash, and nobody can tell any more whether it took effect."""

    def __init__(self, detail: str) -> None:
        super().__init__(ErrorCode.SANDBOX_LOST, detail)


@dataclass(frozen=True, slots=True)
class CallLimits:
    """Bounds on one call. `output_chars`: of a result; `read_chars`: of a page of a file, as shown."""

    output_chars: int = 30_000
    read_chars: int = 50_000
    streamed_chars: int = 200_000
    """Of a command's output as events; the rest is in its result and its file."""
    file_bytes: int = MAX_WRITE_BYTES
    """A larger file is not read or edited as a whole."""
    foreground_seconds: float = 600
    """How long a call may keep the model waiting, whatever it asks for."""
    tool_seconds: float = 300
    """How long a call may take whose tool says nothing of it (`Tool.timeout_seconds`)."""


UNLIMITED = math.inf
"""As a tool's `timeout_seconds`: it keeps to a time of its own."""
CUT_OFF = (
    "{name} was cut off: its worker or its sandbox ended. Whether it took effect, fully or in part, is not known. Look "
    "at the state of things (ls, read_file) before you repeat it."
)


@dataclass(frozen=True, slots=True)
class Question:
    """What a human is asked before a call is made, as JSON; `events` come before it is."""

    request: JSON
    events: list[tuple[str, JSON]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Answer:
    """A human's, any JSON."""

    value: Any


@dataclass(frozen=True, slots=True)
class ChildRun:
    """An agent's run that does a call's work. `parameters` are as of a request's.

    `agent`: one of the catalogue's, or a kind of agents; None: one like the caller.
    """

    task: str
    parameters: JSON = field(default_factory=dict)
    share_sandbox: bool = True
    agent: str | None = None


@dataclass(frozen=True, slots=True)
class ChildEnd:
    """How it ended: its output, or the error (code, detail) for which there is none.

    `usage` is its run's; None: it was never born.
    """

    run_id: str
    output: Any = None
    error: JSON | None = None
    usage: JSON | None = None


Publish = Callable[[str, Any, str | None, str], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class ToolContext:
    """What a call may use. `call_id` names it within its thread, as `key` does everywhere.

    `sandbox` makes or finds the thread's sandbox: a tool asks only when it needs one. `output(stream, text)` shows
    a running tool's output to whoever watches. `publish(name, payload, key, event_key)` publishes an event (once
    for each `event_key`) and returns its id. `memory` is of all earlier results, and not the tool's to change. `web`
    is the only way out of the machine, beside the sandbox.
    """

    run_id: str
    step_id: str
    call_id: str
    key: str
    epoch: int
    sandbox: Callable[[], Awaitable[Sandbox]]
    output: Callable[[str, str], Awaitable[None]]
    publish: Publish
    links: PortLinks
    memory: Memory = field(default_factory=Memory)
    limits: CallLimits = CallLimits()
    answer: Answer | None = None
    """To the tool's `question`, where it had one."""
    child: ChildEnd | None = None
    """The end of the tool's `child`, where it had one."""
    web: Web = field(default_factory=Web)
    effect_key: str = ""
    """Names the effect to the world outside, the same in every try of the call: for an Idempotency-Key."""
    has_sandbox: Callable[[], bool] = lambda: False
    """Whether the thread has a sandbox already, so that asking for it makes none."""


@dataclass(frozen=True, slots=True)
class ToolResult:
    """`content` is what the model reads, `data` what people and programs see. `memory` is for later calls."""

    ok: bool
    content: str
    data: JSON = field(default_factory=dict)
    error_code: str | None = None
    events: list[tuple[str, JSON]] = field(default_factory=list)
    memory: JSON = field(default_factory=dict)

    @classmethod
    def error(cls, code: str, content: str, data: JSON | None = None, memory: JSON | None = None) -> Self:
        """`content`: what failed, what the state is, what to call next."""
        return cls(False, content, data or {}, code, memory=memory or {})

    def encode(self) -> bytes:
        return orjson.dumps(
            {
                "ok": self.ok,
                "content": self.content,
                "data": self.data,
                "error_code": self.error_code,
                "events": self.events,
                "memory": self.memory,
            }
        )

    @classmethod
    def decode(cls, note: bytes) -> Self:
        fields = orjson.loads(note)
        return cls(**fields | {"events": [(kind, data) for kind, data in fields["events"]]})


async def unwatched(stream: str, text: str) -> None:
    """For a command whose output nobody follows."""


class Args(BaseModel):
    """A tool's arguments: their schema is what the model is told, their rules what its call is judged by."""

    model_config = ConfigDict(extra="forbid", frozen=True)


A = TypeVar("A", bound=Args)


class Tool(ABC, Generic[A]):
    """`name` also names the description, a .md file beside the tool's module. See docs/tools.md."""

    Args: type[A]

    @property
    @abstractmethod
    def name(self) -> str: ...

    @property
    @abstractmethod
    def effect(self) -> Effect: ...

    @property
    def asks_when_unknown(self) -> bool:
        """When nobody can tell what became of a call: whether a human decides, or the model is told to look.

        The model can look into its sandbox; what a tool does to the world outside is for a human to find out.
        """
        return False

    @property
    def timeout_seconds(self) -> float | None:
        """Longest call; then it is cancelled, and the model told so. None: `CallLimits.tool_seconds`."""
        return None

    @property
    def bounded(self) -> bool:
        """It keeps its results within `CallLimits` itself. Those of other tools are cut to `output_chars`."""
        return False

    @property
    def untrusted(self) -> bool:
        """Somebody else wrote what its results say: the model reads them fenced."""
        return False

    @property
    def description(self) -> str:
        return self.described

    @cached_property
    def described(self) -> str:
        """The description's file."""
        return Path(inspect.getfile(type(self))).with_name(f"{self.name}.md").read_text("utf-8").strip()

    @cached_property
    def parameters(self) -> JSON:
        """Its arguments' schema, of what every provider takes."""
        return parameters_schema(self.Args)

    def parse(self, arguments: str) -> A | str:
        """A call's arguments, or a text that tells the model which rule they break. Never raises."""
        return parse_arguments(self.name, self.parameters, self.Args, arguments)

    def question(self, args: A, memory: Memory, *, asked: bool) -> Question | None:
        """What a human is asked before the call; the run waits for the answer, without a worker. None: nothing.

        `asked`: an earlier attempt did ask. What it says must follow from its arguments alone.
        """
        return None

    def subjects(self, args: A) -> list[Subject]:
        """What a call is about, for the patterns of permissions."""
        return subjects_of(args.model_dump(mode="json"))

    def child(self, args: A) -> ChildRun | None:
        """A run that does the call's work before `run` makes a result of its end. None: `run` does it all.

        The agent waits for it without a worker. It is called once, whatever crashes, and beside others of its turn.
        """
        return None

    @abstractmethod
    async def run(self, args: A, ctx: ToolContext) -> ToolResult:
        """Raises SandboxError. A SandboxRefused is told to the model as it is, as is what nobody thought of."""

    async def recover(self, args: A, ctx: ToolContext) -> ToolResult | None:
        """After a crash with this call in flight: its result, or None when it is to be run (again).

        Raises SandboxError; SandboxLost or OutcomeUnknown when nobody can tell any more whether it took effect.
        """
        if self.effect is Effect.NONE:
            raise OutcomeUnknown(CUT_OFF.format(name=self.name))
        return None
