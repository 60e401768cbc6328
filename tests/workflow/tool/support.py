"""Calls tools as the agent's loop does: parse, run, remember."""

import json
from dataclasses import dataclass, field
from typing import Any

from workflow.sandbox.base import Sandbox
from workflow.tool.base import Answer, CallLimits, ToolContext, ToolResult
from workflow.tool.dispatch import recover_call, run_call
from workflow.tool.memory import Memory
from workflow.tool.registry import built_in_tools

REGISTRY = built_in_tools()


@dataclass
class Caller:
    """One run in one thread. `shown` is what its tools put out while they ran."""

    box: Sandbox
    run_id: str = "t.r"
    epoch: int = 1
    limits: CallLimits = field(default_factory=CallLimits)
    memory: Memory = field(default_factory=Memory)
    shown: list[tuple[str, str]] = field(default_factory=list)
    published: dict[str, tuple[str, object, str | None]] = field(default_factory=dict)
    calls: int = 0
    answer: Answer | None = None
    """A human's, to the next calls."""

    async def __call__(self, name: str, /, **arguments: Any) -> ToolResult:
        self.calls += 1
        return await self.run(f"call_{self.calls}", name, **arguments)

    async def run(self, call_id: str, name: str, /, **arguments: Any) -> ToolResult:
        """As that call, whose result the run gets to know."""
        result = await run_call(REGISTRY.parse(name, json.dumps(arguments)), self.context(call_id))
        self.memory.learn(result.memory)
        assert len(result.content) <= max(self.limits.output_chars, self.limits.read_chars + 200)
        return result

    async def recover(self, call_id: str, name: str, /, **arguments: Any) -> ToolResult | None:
        """After a crash, in the next attempt."""
        self.epoch += 1
        return await recover_call(REGISTRY.parse(name, json.dumps(arguments)), self.context(call_id))

    def context(self, call_id: str) -> ToolContext:
        async def sandbox() -> Sandbox:
            return self.box

        async def show(stream: str, text: str) -> None:
            self.shown.append((stream, text))

        async def publish(name: str, payload: object, key: str | None, event_key: str) -> str:
            self.published[event_key] = (name, payload, key)
            return "1-0"

        return ToolContext(
            run_id=self.run_id,
            step_id=f"{self.run_id}.{self.calls}",
            call_id=call_id,
            key=f"{self.run_id}/tool:{call_id}",
            epoch=self.epoch,
            sandbox=sandbox,
            output=show,
            publish=publish,
            memory=self.memory,
            limits=self.limits,
            answer=self.answer,
        )
