"""Publishes an event, for durable code that waits for it."""

from typing import Any, ClassVar

from pydantic import Field

from workflow.tool.base import Args, Effect, Tool, ToolContext, ToolResult


class PublishEventArgs(Args):
    name: str = Field(description="The event's name.")
    payload: dict[str, Any] = Field(default={}, description="What goes with it.")
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
        event_id = await ctx.publish(args.name, args.payload, args.key, ctx.key)
        return ToolResult(ok=True, content=f"Published {args.name}.", data={"event_id": event_id})
