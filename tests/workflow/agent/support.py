"""A model that works through tasks of any length, whatever of the conversation it still reads."""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from redis.asyncio import Redis

from shared.events.outside import Outside
from shared.ids import new_run_id, new_thread_id
from shared.redis import connect
from shared.threads.types import NewRun, NewThread, Run
from tests.workflow.support import Ledger, LedgerTool, NoArgs, a_runtime, outside
from tests.workflow.test_runner import Died, Mortal
from workflow.agent.context import read_prompt
from workflow.llm.scripted import replay
from workflow.llm.types import (
    NO_PRICE,
    ModelRequest,
    ModelResponse,
    Price,
    TextDelta,
    ThinkingDelta,
    ToolCall,
    Usage,
)
from workflow.runner import Runner, Signals
from workflow.runtime import Runtime
from workflow.tool.base import Effect, ToolContext, ToolResult
from workflow.tool.registry import Registry

DONE = "All is done."
BOUND_SECONDS = 30
CALL = re.compile(r"t(\d+)\.(\d+)")


@dataclass
class Worker:
    """Calls `dump` in each of so many turns of a task, and then is done; sums up what it is told to.

    It knows by the last call's id where it is. `summaries` counts what it was asked to sum up, `requests` has what it
    read for each turn (the last time that it was asked for it), `before` is awaited before each answer.
    """

    turns: int
    context_tokens: int = 4_000
    price: Price | None = NO_PRICE
    cost: float | None = 0.001
    name: str = "worker"
    deployment: str | None = None
    summaries: int = 0
    calls: int = 0
    requests: dict[str, ModelRequest] = field(default_factory=dict)
    before: Callable[[str], Awaitable[None]] | None = None

    async def stream(self, request: ModelRequest) -> AsyncGenerator[TextDelta | ThinkingDelta | ModelResponse, None]:
        self.calls += 1
        usage = Usage(100, 20, cost=self.cost)
        place = self._place(request)
        if self.before is not None:
            await self.before(place)
        if request.messages[0]["content"] == read_prompt("compact"):
            self.summaries += 1
            seen = sorted(set(CALL.findall(request.messages[1]["content"])))
            answer = ModelResponse(f"Up to {seen[-1] if seen else 'nothing'}.", usage=usage)
        else:
            self.requests[place] = request
            answer = self._turn(place, usage)
        async for item in replay(answer):
            yield item

    def _place(self, request: ModelRequest) -> str:
        tasks = [m["content"] for m in request.messages if m["role"] == "user" and m["content"].startswith("Task ")]
        task = tasks[-1].removeprefix("Task ").split()[0] if tasks else "0"
        done = [int(CALL.fullmatch(m["tool_call_id"])[2]) for m in request.messages  # type: ignore[index]
                if m["role"] == "tool" and m["tool_call_id"].startswith(f"t{task}.")]  # fmt: skip
        return f"t{task}.{max(done, default=0) + 1}"

    def _turn(self, place: str, usage: Usage) -> ModelResponse:
        if int(place.partition(".")[2]) > self.turns:
            return ModelResponse(DONE, usage=usage)
        return ModelResponse(f"Turn {place}.", tool_calls=[ToolCall(place, "dump", "{}")], usage=usage)


class DumpTool(LedgerTool):
    """Says much, once."""

    name: ClassVar[str] = "dump"
    effect: ClassVar[Effect] = Effect.REPEATABLE
    chars: int = 1_600

    async def run(self, args: NoArgs, ctx: ToolContext) -> ToolResult:
        self.ledger.effect(ctx.key)
        return ToolResult(ok=True, content=f"Of {ctx.call_id}: " + "x" * self.chars)


def runtime_of(
    model: Any, client: Redis, *, chars: int = 1_600, ledger: Ledger | None = None, **settings: Any
) -> Runtime:
    dump = DumpTool(ledger or Ledger())
    dump.chars = chars
    return replace(a_runtime(model, client=client, **settings), all_tools=Registry([dump]))


async def new_thread(out: Outside) -> str:
    return (await out.store.create_thread(NewThread(new_thread_id(), "w"))).id


async def submit(out: Outside, thread_id: str, task: str = "Task 1", **fields: Any) -> str:
    run_id = new_run_id(thread_id)
    await out.store.submit(NewRun(run_id, "w", {"task": task}, **fields), queued={})
    return run_id


async def execute(out: Outside, runtime: Runtime, run_id: str, worker: str = "w1") -> Run:
    await asyncio.wait_for(Runner(out, runtime).execute(run_id, worker, Signals()), BOUND_SECONDS)
    run = await out.store.run(run_id)
    assert run is not None
    return run


@asynccontextmanager
async def mortal(redis_url: str, dies_at: int) -> AsyncIterator[tuple[Outside, Redis]]:
    """A process's view of Redis: at the n-th point nothing works any more. Swallows that death."""
    death = Mortal(dies_at)
    client = connect(redis_url, timeout_seconds=5, max_connections=10)
    execute: Any = client.execute_command

    async def mortal_command(*args: Any, **options: Any) -> Any:
        death.point()
        answer = await execute(*args, **options)
        death.point()
        return answer

    client.execute_command = mortal_command  # type: ignore[method-assign]
    try:
        yield outside(client), client
    except Died:
        pass
    finally:
        await client.aclose()
