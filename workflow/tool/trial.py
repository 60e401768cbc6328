"""One call of a workspace's tool, for whoever wrote it, as a durable function: no model, no sandbox."""

import json
from typing import Any

from redis.asyncio import Redis

from shared.config import Settings
from shared.errors import AppError, ErrorCode
from shared.ids import thread_of
from shared.links import PortLinks
from shared.types import JSON, TOOL_TRIAL
from workflow.engine.durable import DurableFunction
from workflow.engine.scope import StepScope
from workflow.sandbox.base import Sandbox, SandboxUnavailable
from workflow.tool.base import CallLimits, Effect, ToolContext, unwatched
from workflow.tool.dispatch import run_call
from workflow.tool.registry import Registry
from workflow.tool.workspace import WorkspaceTools
from workflow.web.web import Web


def trial_function(settings: Settings, client: Redis, web: Web) -> DurableFunction:
    tools = WorkspaceTools(settings, web.workspaces)
    limits = CallLimits(output_chars=settings.tools.max_output_chars, tool_seconds=settings.tools.timeout_seconds)

    async def call_once(step: Any, input: Any) -> JSON:
        """`input`: the `tool`'s row, and its `arguments`. Raises AppError INVALID_REQUEST."""
        registry = Registry(tools.made([input["tool"]]))
        name = input["tool"]["name"]
        parsed = registry.parse(name, json.dumps(input["arguments"]))

        async def call(scope: StepScope) -> JSON:
            result = await run_call(parsed, _context(scope, client, settings, web, limits))
            return {"ok": result.ok, "content": result.content, "data": result.data, "error_code": result.error_code}

        once = not isinstance(parsed, str) and parsed.tool.effect is Effect.NONE
        result: JSON = await step.do(name, call, input=input["arguments"], repeat=not once)
        return result

    return DurableFunction(TOOL_TRIAL, 1, call_once)


def _context(scope: StepScope, client: Redis, settings: Settings, web: Web, limits: CallLimits) -> ToolContext:
    return ToolContext(
        run_id=scope.run_id,
        step_id=scope.step_id,
        call_id=str(scope.number),
        key=scope.key,
        epoch=scope.epoch,
        sandbox=_no_sandbox,
        output=unwatched,
        publish=_no_publishing,
        links=PortLinks(client, settings.api, thread_of(scope.run_id)),
        limits=limits,
        web=web,
        effect_key=scope.effect_key,
    )


async def _no_sandbox() -> Sandbox:
    raise SandboxUnavailable("There is no sandbox where a tool is tested.")


async def _no_publishing(name: str, payload: Any, key: str | None, event_key: str) -> str:
    raise AppError(ErrorCode.INVALID_REQUEST, "No events are published where a tool is tested.")
