"""For tests of tools of your own: a call as an agent makes it, without an agent.

result = await call_tool(WordCountTool(), text="one two")
assert result.content == "2 words"
"""

import json
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis

from shared.config import ApiSettings
from shared.links import PortLinks
from workflow.sandbox.base import Sandbox, SandboxUnavailable
from workflow.tool.base import CallLimits, Tool, ToolContext, ToolResult
from workflow.tool.catalogue import check_tool
from workflow.tool.dispatch import run_call
from workflow.tool.memory import Memory
from workflow.tool.registry import Registry
from workflow.web.web import Web


@dataclass
class Calls:
    """What calls did beside their results: `shown` is the output of running tools, `published` their events."""

    sandbox: Sandbox | None = None
    limits: CallLimits = field(default_factory=CallLimits)
    memory: Memory = field(default_factory=Memory)
    web: Web = field(default_factory=Web)
    links: PortLinks = field(default_factory=lambda: PortLinks(Redis(), ApiSettings(), "thread"))
    shown: list[tuple[str, str]] = field(default_factory=list)
    published: list[tuple[str, Any]] = field(default_factory=list)
    made: int = 0

    def context(self) -> ToolContext:
        self.made += 1
        call_id = f"call_{self.made}"
        return ToolContext(
            run_id="thread.run",
            step_id=f"thread.run.{self.made}",
            call_id=call_id,
            key=f"thread.run/tool:{call_id}",
            epoch=1,
            sandbox=self._sandbox,
            output=self._show,
            publish=self._publish,
            links=self.links,
            memory=self.memory,
            limits=self.limits,
            web=self.web,
            effect_key=f"thread.run/tool:{call_id}",
            has_sandbox=lambda: self.sandbox is not None,
        )

    async def _sandbox(self) -> Sandbox:
        if self.sandbox is None:
            raise SandboxUnavailable("There is no sandbox in this test: give one to Calls(sandbox=...).")
        return self.sandbox

    async def _show(self, stream: str, text: str) -> None:
        self.shown.append((stream, text))

    async def _publish(self, name: str, payload: Any, key: str | None, event_key: str) -> str:
        self.published.append((name, payload))
        return "1-0"


async def call_tool(tool: Tool[Any], calls: Calls | None = None, /, **arguments: Any) -> ToolResult:
    """What the model and the user get of a call with these arguments, however wrong they are.

    Raises AppError where a worker would refuse the tool, and as `run_call`.
    """
    check_tool(tool)
    calls = calls or Calls()
    result = await run_call(Registry([tool]).parse(tool.name, json.dumps(arguments)), calls.context())
    calls.memory.learn(result.memory)
    return result
