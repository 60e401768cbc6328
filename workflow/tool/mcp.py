"""A tool of an MCP server, as any other tool of an agent."""

import hashlib
import re
from typing import Any

import mcp_types
import orjson

from workflow.mcp.server import CallLost, CallRefused, McpServer
from workflow.tool.base import UNLIMITED, Effect, OutcomeUnknown, ToolContext, ToolResult
from workflow.tool.display import cut_middle, short_lines, size_text
from workflow.tool.schema_tool import GivenArgs, SchemaTool
from workflow.tool.untrusted import cleaned, fenced, without_comments

NAME_CHARS = 64
DESCRIPTION_CHARS = 900
IN_FLIGHT = "{name} was under way when its worker ended, and its server does not tell what became of it."
LOST = "{name} was sent, and got no answer. Whether it took effect is not known. Why:\n{why}"
ERROR_CHARS = 2_000
"""Of what a server says instead of a result."""


class McpTool(SchemaTool):
    """What it does to the world outside is the server's: only what it declares harmless is ever repeated."""

    bounded = True
    timeout_seconds = UNLIMITED

    def __init__(self, server: McpServer, tool: mcp_types.Tool) -> None:
        effect = effect_of(tool.annotations)
        super().__init__(
            tool_name(server.name, tool.name),
            _description(server.name, tool),
            tool.input_schema,
            effect,
            asks_when_unknown=effect is Effect.NONE,
        )
        self._server = server
        self._remote = tool.name

    async def run(self, args: GivenArgs, ctx: ToolContext) -> ToolResult:
        try:
            found = await self._call(args)
        except CallRefused as refused:
            return ToolResult.error("mcp_error", f"{self.name} failed:\n{self._quoted(refused)}", self._data)
        except CallLost as lost:
            why = self._quoted(lost)
            if self.effect is Effect.NONE:
                raise OutcomeUnknown(LOST.format(name=self.name, why=why)) from lost
            text = f"{self.name} got no answer:\n{why}\nCall it again."
            return ToolResult.error("mcp_lost", text, self._data)
        return self._result(found, ctx)

    async def recover(self, args: GivenArgs, ctx: ToolContext) -> ToolResult | None:
        if self.effect is Effect.NONE:
            raise OutcomeUnknown(IN_FLIGHT.format(name=self.name))
        return None

    @property
    def _data(self) -> dict[str, Any]:
        return {"server": self._server.name, "tool": self._remote}

    @property
    def _source(self) -> str:
        return f"MCP server {self._server.name}"

    def _quoted(self, error: Exception) -> str:
        """Its text may hold the server's words."""
        return fenced(cut_middle(cleaned(str(error)), ERROR_CHARS, 0.6, "the rest is not kept"), self._source)

    async def _call(self, args: GivenArgs) -> mcp_types.CallToolResult:
        try:
            return await self._server.call(self._remote, args.fields)
        except (CallRefused, CallLost):
            if self.effect is Effect.NONE:
                raise
        return await self._server.call(self._remote, args.fields)

    def _result(self, found: mcp_types.CallToolResult, ctx: ToolContext) -> ToolResult:
        parts = [*filter(None, (_text(block) for block in found.content))]
        if not parts and found.structured_content is not None:
            parts = [orjson.dumps(found.structured_content, option=orjson.OPT_INDENT_2).decode()]
        text = short_lines(without_comments("\n\n".join(parts))) or "(no output)"
        text = cut_middle(text, ctx.limits.output_chars - 200, 0.6, "call it again for a smaller part")
        content = fenced(text, self._source)
        if found.is_error:
            return ToolResult.error("mcp_tool_error", f"{self.name} says that it failed:\n{content}", self._data)
        return ToolResult(True, content, self._data)


def effect_of(hints: mcp_types.ToolAnnotations | None) -> Effect:
    if hints and hints.read_only_hint:
        return Effect.REPEATABLE
    return Effect.IDEMPOTENT if hints and hints.idempotent_hint else Effect.NONE


def tool_name(server: str, tool: str) -> str:
    """`mcp__server__tool`, in what every provider takes; different tools have different names."""
    full = f"mcp__{server}__{tool}"
    name = re.sub(r"[^a-zA-Z0-9_-]", "_", full)
    if name == full and len(name) <= NAME_CHARS:
        return name
    return f"{name[: NAME_CHARS - 9]}_{hashlib.sha256(full.encode()).hexdigest()[:8]}"


def _description(server: str, tool: mcp_types.Tool) -> str:
    """A server can write into it what it likes: it is said whose words they are."""
    said = " ".join(cleaned(tool.description or tool.title or "").split())[:DESCRIPTION_CHARS]
    return f"A tool of the MCP server {server}, which describes it so: {said or '(nothing)'}"


def _text(block: mcp_types.ContentBlock) -> str:
    match block:
        case mcp_types.TextContent():
            return block.text
        case mcp_types.ImageContent() | mcp_types.AudioContent():
            return f"[{block.mime_type}, {size_text(len(block.data) * 3 // 4)}: not shown]"
        case mcp_types.ResourceLink():
            return f"[resource {block.uri}: {block.description or block.name}]"
        case mcp_types.EmbeddedResource(resource=mcp_types.TextResourceContents() as held):
            return f"[resource {held.uri}]\n{held.text}"
        case _:
            return "[a resource that is no text: not shown]"
