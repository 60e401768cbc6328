"""A runtime without processes: a model that answers from the conversation, tools that keep a ledger, no sandbox."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from redis.asyncio import Redis

from shared.budgets.store import Budgets
from shared.config import Settings
from shared.events.outside import Outside
from shared.types import JSON
from workflow.engine.durable import DurableFunction, Functions
from workflow.llm.breaker.breaker import Breaker, BreakerPolicy
from workflow.llm.choose import Chosen
from workflow.llm.retry import RetryPolicy
from workflow.llm.scripted import replay
from workflow.llm.types import NO_PRICE, ModelRequest, ModelResponse, TextDelta, ThinkingDelta, ToolCall, Usage
from workflow.runtime import Runtime
from workflow.sandbox.base import Sandbox, SandboxUnavailable
from workflow.tool.base import Args, CallLimits, Effect, OutcomeUnknown, Tool, ToolContext, ToolResult
from workflow.tool.registry import Registry


class Playbook:
    """A model that gives turn n of its book when n of its answers follow the last task, however often it is asked."""

    name = "playbook"
    context_tokens = 100_000
    price = NO_PRICE
    deployment = None

    def __init__(self, turns: Sequence[ModelResponse]) -> None:
        self.turns = turns

    async def stream(self, request: ModelRequest) -> AsyncGenerator[TextDelta | ThinkingDelta | ModelResponse, None]:
        last_task = max(i for i, message in enumerate(request.messages) if message["role"] == "user")
        done = sum(message["role"] == "assistant" for message in request.messages[last_task:])
        async for item in replay(self.turns[done]):
            yield item


def turn(content: str, *calls: tuple[str, str, str]) -> ModelResponse:
    """`calls`: (id, tool, arguments)."""
    return ModelResponse(content, tool_calls=[ToolCall(*call) for call in calls], usage=Usage(10, 5, 0, 0.001))


@dataclass
class Ledger:
    """What really happened, however often it was reported. `dies` is asked before and after each effect."""

    effects: Counter[str] = field(default_factory=Counter)
    dies: Any = lambda: None

    def effect(self, key: str) -> None:
        self.dies()
        self.effects[key] += 1
        self.dies()


class NoArgs(Args):
    pass


class LedgerTool(Tool[NoArgs]):
    """Base of the tools below: one effect a call."""

    Args = NoArgs
    description = "For tests."

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    async def run(self, args: NoArgs, ctx: ToolContext) -> ToolResult:
        await ctx.output("output", f"{self.name} works")
        await asyncio.sleep(0)
        self.ledger.effect(ctx.key)
        return ToolResult(ok=True, content=f"{self.name} done", events=[("todo", {"name": self.name})])


class LookTool(LedgerTool):
    name: ClassVar[str] = "look"
    effect: ClassVar[Effect] = Effect.REPEATABLE


class KeyedTool(LedgerTool):
    """Knows by the key what it did, as a sandbox does."""

    name: ClassVar[str] = "keyed"
    effect: ClassVar[Effect] = Effect.NONE

    async def recover(self, args: NoArgs, ctx: ToolContext) -> ToolResult | None:
        return ToolResult(ok=True, content="keyed done") if self.ledger.effects[ctx.key] else None


class BlindTool(LedgerTool):
    """Cannot tell what became of a call."""

    name: ClassVar[str] = "blind"
    effect: ClassVar[Effect] = Effect.NONE

    async def recover(self, args: NoArgs, ctx: ToolContext) -> ToolResult | None:
        raise OutcomeUnknown("Nobody knows whether it took effect. Check before you call it again.")


class AskingTool(BlindTool):
    """What it does to the world outside is for a human to find out."""

    name: ClassVar[str] = "asking"
    asks_when_unknown: ClassVar[bool] = True


class NoSandboxes:
    async def acquire(self, thread_id: str, ref: JSON | None) -> Sandbox:
        raise SandboxUnavailable("There is no sandbox in this test.")

    async def close(self) -> None:
        pass


def outside(client: Redis, patience_seconds: float | None = 2, **settings: Any) -> Outside:
    """What is rung for is kept in the list `rung`."""

    async def ring(run_id: str | None) -> None:
        if run_id is not None:
            await client.rpush("rung", run_id)

    return Outside.over(client, Settings(**settings), ring, patience_seconds=patience_seconds)


def a_runtime(
    model: Any,
    ledger: Ledger | None = None,
    functions: Sequence[DurableFunction] = (),
    client: Redis | None = None,
    **settings: Any,
) -> Runtime:
    """`client`: for the budgets, where there are limits."""
    ledger = ledger or Ledger()
    return Runtime(
        settings=Settings(**settings),
        chosen=Chosen(model.name, "test"),
        sandboxes=NoSandboxes(),
        all_tools=Registry([LookTool(ledger), KeyedTool(ledger), BlindTool(ledger), AskingTool(ledger)]),
        retry=RetryPolicy(max_attempts=2, backoff_seconds=0),
        breaker=Breaker(Redis(), BreakerPolicy()),  # a model without a deployment asks none
        budgets=Budgets(client or Redis(), patience_seconds=2),
        tool_limits=CallLimits(),
        functions=Functions(functions),
        models={model.name: model},
    )
