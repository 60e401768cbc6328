"""Publishes an event, for durable code that waits for it."""

import json
from typing import Any, ClassVar

from pydantic import Field

from workflow.tool.base import Args, Effect, Tool, ToolContext, ToolResult


class PublishEventArgs(Args):
    name: str = Field(description="The event's name.")
    payload: str | None = Field(default=None, description="What goes with it: JSON, or plain text.")
    key: str | None = Field(
        default=None, description="Reaches only those who wait for this name and key, such as an order's number."
    )


class PublishEventTool(Tool[PublishEventArgs]):
    name: ClassVar[str] = "publish_event"
    effect: ClassVar[Effect] = Effect.IDEMPOTENT
    Args = PublishEventArgs

    async def run(self, args: PublishEventArgs, ctx: ToolContext) -> ToolResult:
        if not args.name.strip():
            return ToolResult.error("invalid_arguments", "name is blank. Call it again with the event's name.")
        event_id = await ctx.publish(args.name, _parsed(args.payload), args.key, ctx.key)
        return ToolResult(ok=True, content=f"Published {args.name}.", data={"event_id": event_id})


def _parsed(payload: str | None) -> Any:
    """As JSON where it is, which Gemini cannot be told of in a schema (an object needs named properties there)."""
    try:
        return None if payload is None else json.loads(payload)
    except ValueError:
        return payload
