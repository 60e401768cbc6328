"""The tools that agents have in a chaos run: each has an effect that the ledger keeps."""

import asyncio
from collections.abc import Callable
from typing import ClassVar

from tests.chaos.ledger import Ledger
from workflow.tool.base import Args, Effect, OutcomeUnknown, Tool, ToolContext, ToolResult

WORK_SECONDS = 0.1
STUCK_SECONDS = 20


class Op(Args):
    """`op`: what is to be done once, however often it is tried."""

    op: str


class ChaosTool(Tool[Op]):
    """`point` is told that an effect is about to happen, and that it has happened."""

    Args = Op
    description = "For chaos runs."

    def __init__(self, ledger: Ledger, point: Callable[[str], None], work_seconds: float = WORK_SECONDS) -> None:
        self.ledger = ledger
        self.point = point
        self.work_seconds = work_seconds

    async def run(self, args: Op, ctx: ToolContext) -> ToolResult:
        await ctx.output("output", f"{self.name} {args.op}\n")
        await asyncio.sleep(self.work_seconds)
        self.point("before_effect")
        await self.do(args.op, ctx.key)
        self.point("after_effect")
        return ToolResult(ok=True, content=f"{self.name} {args.op}")

    async def do(self, op: str, key: str) -> None:
        raise AssertionError(f"{self.name} does nothing")


class LookTool(ChaosTool):
    name: ClassVar[str] = "look"
    effect: ClassVar[Effect] = Effect.REPEATABLE

    async def do(self, op: str, key: str) -> None:
        self.ledger.do_blind(f"look:{op}")


class StuckTool(ChaosTool):
    """Hangs the first time it is called."""

    name: ClassVar[str] = "stuck"
    effect: ClassVar[Effect] = Effect.REPEATABLE

    async def do(self, op: str, key: str) -> None:
        if self.ledger.first_time(op):
            await asyncio.sleep(STUCK_SECONDS)


class ChargeTool(ChaosTool):
    """Given the same key again, it does nothing again."""

    name: ClassVar[str] = "charge"
    effect: ClassVar[Effect] = Effect.IDEMPOTENT

    async def do(self, op: str, key: str) -> None:
        self.ledger.do_keyed(op, key)


class KeyedTool(ChargeTool):
    """Can tell by the key what it did, as a sandbox can."""

    name: ClassVar[str] = "keyed"
    effect: ClassVar[Effect] = Effect.NONE

    async def recover(self, args: Op, ctx: ToolContext) -> ToolResult | None:
        return ToolResult(ok=True, content=f"keyed {args.op}") if self.ledger.did_keyed(ctx.key) else None


class BlindTool(ChaosTool):
    """Cannot tell what became of a call."""

    name: ClassVar[str] = "blind"
    effect: ClassVar[Effect] = Effect.NONE

    async def do(self, op: str, key: str) -> None:
        self.ledger.do_blind(op)

    async def recover(self, args: Op, ctx: ToolContext) -> ToolResult | None:
        raise OutcomeUnknown("Nobody knows whether it took effect. Check before you call it again.")


class AskingTool(BlindTool):
    name: ClassVar[str] = "asking"
    asks_when_unknown: ClassVar[bool] = True


TOOLS: tuple[type[ChaosTool], ...] = (LookTool, StuckTool, ChargeTool, KeyedTool, BlindTool, AskingTool)
