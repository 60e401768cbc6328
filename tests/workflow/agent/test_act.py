"""How a turn's calls are made: side by side where all only read, one after the other where one does not."""

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import pytest
from redis.asyncio import Redis

from shared.events.outside import Outside
from shared.types import RunStatus
from tests.workflow.agent.support import execute, new_thread, submit
from tests.workflow.support import NoArgs, Playbook, a_runtime, turn
from workflow.tool.base import Effect, Tool, ToolContext, ToolResult
from workflow.tool.registry import Registry


@dataclass
class Meeting:
    """Who is at work, and the most that ever were at once. A call ends once as many as `expected` have met."""

    expected: int
    at_work: int = 0
    most: int = 0
    order: list[str] = field(default_factory=list)


class MeetingTool(Tool[NoArgs]):
    Args = NoArgs
    description = "For tests."

    def __init__(self, meeting: Meeting) -> None:
        self.meeting = meeting

    async def run(self, args: NoArgs, ctx: ToolContext) -> ToolResult:
        meeting = self.meeting
        meeting.order.append(ctx.call_id)
        meeting.at_work += 1
        meeting.most = max(meeting.most, meeting.at_work)
        async with asyncio.timeout(10):
            while meeting.most < meeting.expected:
                await asyncio.sleep(0)
            for _ in range(100):  # in which others could come
                await asyncio.sleep(0)
        meeting.at_work -= 1
        return ToolResult(ok=True, content=ctx.call_id)


class ReadTool(MeetingTool):
    name: ClassVar[str] = "read"
    effect: ClassVar[Effect] = Effect.REPEATABLE


class WriteTool(MeetingTool):
    name: ClassVar[str] = "write"
    effect: ClassVar[Effect] = Effect.IDEMPOTENT


@pytest.mark.parametrize(("last", "most"), [("read", 3), ("write", 1)])
async def test_calls_of_a_turn_meet_only_where_all_of_them_read(
    out: Outside, client: Redis, last: str, most: int
) -> None:
    meeting = Meeting(most)
    model: Any = Playbook([turn("", ("a", "read", "{}"), ("b", "read", "{}"), ("c", last, "{}")), turn("Done.")])
    tools = Registry([ReadTool(meeting), WriteTool(meeting)])
    run_id = await submit(out, await new_thread(out))
    run = await execute(out, replace(a_runtime(model, client=client), all_tools=tools), run_id)
    assert run.status is RunStatus.SUCCEEDED
    assert meeting.most == most
    assert meeting.order == ["a", "b", "c"]
    told = [m["content"] for m in await out.store.messages(run.thread_id) if m["role"] == "tool"]
    assert sorted(told) == ["a", "b", "c"]
