"""Calls the web's tools as the agent's loop does, without a sandbox."""

import json
from typing import Any

from shared.net.guard import Guard
from tests.support.web_server import WebServer
from workflow.sandbox.base import Sandbox, SandboxUnavailable
from workflow.tool.base import CallLimits, Tool, ToolContext, ToolResult, unwatched
from workflow.tool.dispatch import run_call
from workflow.tool.registry import Registry
from workflow.web.web import Web


def allowing(*servers: WebServer, **more: Any) -> Guard:
    """A guard that knows those servers of this machine."""
    return Guard(private_hosts=[f"127.0.0.1:{server.port}" for server in servers], **more)


def a_context(web: Web | None = None, limits: CallLimits | None = None) -> ToolContext:
    async def sandbox() -> Sandbox:
        raise SandboxUnavailable("There is no sandbox in this test.")

    async def publish(name: str, payload: object, key: str | None, event_key: str) -> str:
        raise AssertionError("nothing is published here")

    return ToolContext(
        run_id="t.r",
        step_id="t.r.1",
        call_id="call_1",
        key="t.r/tool:call_1",
        epoch=1,
        sandbox=sandbox,
        output=unwatched,
        publish=publish,
        limits=limits or CallLimits(),
        web=web or Web(),
    )


async def call(tool: Tool[Any], ctx: ToolContext, /, **arguments: Any) -> ToolResult:
    return await run_call(Registry([tool]).parse(tool.name, json.dumps(arguments)), ctx)
