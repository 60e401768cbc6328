"""A call that was under way at a crash, of a tool that the next worker does not have (an MCP server that is away)."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from redis.asyncio import Redis

from shared.events.outside import Outside
from shared.redis import connect
from shared.types import RunStatus, StepStatus
from tests.workflow.agent.support import execute, new_thread, submit
from tests.workflow.support import Ledger, LedgerTool, Playbook, a_runtime, outside, turn
from tests.workflow.test_runner import Died
from workflow.runner import Runner, Signals
from workflow.tool.base import Effect
from workflow.tool.registry import Registry


class SendTool(LedgerTool):
    name: ClassVar[str] = "send"
    effect: ClassVar[Effect] = Effect.NONE
    asks_when_unknown: ClassVar[bool] = True


class PutTool(LedgerTool):
    name: ClassVar[str] = "put"
    effect: ClassVar[Effect] = Effect.IDEMPOTENT


@pytest.fixture
async def dying(redis_url: str) -> AsyncIterator[tuple[Outside, Ledger]]:
    """A worker's view of Redis, which ends with the first effect."""
    ledger = Ledger()
    client = connect(redis_url, timeout_seconds=5, max_connections=10)
    view = outside(client)
    call = view.store._scripts.call

    def die() -> None:
        if ledger.effects:
            raise Died

    async def mortal_call(name: str, keys: list[str], args: list[Any], **how: Any) -> Any:
        die()
        return await call(name, keys, args, **how)

    ledger.dies = die
    view.store._scripts.call = mortal_call  # type: ignore[assignment, method-assign]
    yield view, ledger
    await client.aclose()


@pytest.mark.parametrize("tool", [SendTool, PutTool])
async def test_a_human_hears_that_its_outcome_is_not_known_where_its_tool_asked_and_else_the_model(
    out: Outside, client: Redis, dying: tuple[Outside, Ledger], tool: type[SendTool | PutTool]
) -> None:
    view, ledger = dying
    model: Any = Playbook([turn("", ("a", tool.name, "{}")), turn("Done.")])
    runtime = a_runtime(model, client=client)
    run_id = await submit(out, await new_thread(out))
    with pytest.raises(Died):
        await Runner(view, replace(runtime, all_tools=Registry([tool(ledger)]))).execute(run_id, "w1", Signals())
    assert sum(ledger.effects.values()) == 1
    await out.store.expire(run_id, "w1", max_attempts=5)
    run = await execute(out, runtime, run_id, "w2")
    [step] = [step for step in await out.store.journal(run_id) if step.key == "tool:a"]
    assert step.status is StepStatus.UNKNOWN
    if tool is SendTool:
        assert run.status is RunStatus.WAITING
        assert step.wait
        told = str(step.wait.request)
    else:
        assert run.status is RunStatus.SUCCEEDED
        [told] = [m["content"] for m in await out.store.messages(run.thread_id) if m["role"] == "tool"]
    assert f"There is no tool named '{tool.name}'" in told
    assert "not known" in told
