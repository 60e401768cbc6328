"""What requests and answers about tools say."""

from typing import Annotated, Any, Self

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from gateway.routes.answers import Timestamp
from gateway.routes.bodies import INTEGRAL, Body, JsonObject, Text
from gateway.routes.row_bodies import RowFields, RowPatch, aliases
from shared.config.tools import ToolName
from shared.db.tools import Effect, Tool
from shared.payloads.payloads import Payloads
from shared.threads.types import Run
from shared.tool_rules import WorkspaceToolType
from shared.types import JSON, RunStatus
from shared.workers.tools import ToolCard, ToolType

MAX_BYTES = 32_768
"""Of each of its JSON documents: every run that may use the tool carries them."""


def _small(value: JSON) -> JSON:
    if (size := len(orjson.dumps(value))) > MAX_BYTES:
        raise ValueError(f"should be at most {MAX_BYTES:,} bytes of JSON, and is {size:,}")
    return value


def _plain_names(config: JSON) -> JSON:
    """In our words."""
    return {"function" if name == "functionName" else name: value for name, value in config.items()}


Small = Annotated[JsonObject, AfterValidator(_small)]
Config = Annotated[Small, AfterValidator(_plain_names)]


class ToolFields(RowFields):
    description: Annotated[Text, Field(max_length=1024)] | None = Field(
        default=None, description="For models: what it does, and when to call it. Unset: its name."
    )
    input_schema: Small | None = Field(
        default=None,
        validation_alias=aliases("input_schema", "inputSchema"),
        description="A JSON Schema of an object, by which arguments are judged. Unset: it takes none.",
    )
    output_schema: Small | None = Field(
        default=None,
        validation_alias=aliases("output_schema", "outputSchema"),
        description="A JSON Schema by which what it gives is judged.",
    )
    effect: Effect | None = Field(
        default=None,
        description="What a second run of the same call would do: nothing more (repeatable: it only reads; idempotent: "
        "it knows its Idempotency-Key), or its effect again (none).",
    )
    timeout_seconds: Annotated[int, Field(ge=1, le=86_400), INTEGRAL] | None = Field(
        default=None, validation_alias=aliases("timeout_seconds", "timeoutSeconds")
    )

    def _column(self, name: str) -> Any:
        if name == "input_schema":
            return self.input_schema or {"type": "object", "properties": {}}
        if name == "effect":
            return self.effect or "none"
        return super()._column(name)


class ToolBody(ToolFields):
    name: ToolName = Field(description="As models call it. No other tool of the workspace or of the workers has it.")
    type: WorkspaceToolType = Field(
        description="http: a request. function: a Python function of the workers. mcp: a tool of an MCP server. "
        "builtin: another name for a tool of the workers."
    )
    config: Config = Field(
        description="http: url, method, headers, query, body, with {argument} for arguments. function: function "
        "(`module:name`). mcp: url, tool, headers. builtin: tool."
    )

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "weather",
                    "description": "The weather of a city.",
                    "type": "http",
                    "config": {"url": "https://api.example.com/weather/{city}"},
                    "input_schema": {
                        "type": "object",
                        "properties": {"city": {"type": "string"}},
                        "required": ["city"],
                    },
                    "effect": "repeatable",
                }
            ]
        }
    )

    def columns(self) -> JSON:
        found = {"input_schema": self._column("input_schema"), **super().columns()}
        return {**found, "description": self.description or self.name}


class ToolPatch(ToolFields, RowPatch):
    name: ToolName | None = None
    type: WorkspaceToolType | None = None
    config: Config | None = None

    model_config = ConfigDict(json_schema_extra={"examples": [{"timeout_seconds": 20, "expected_version": 1}]})

    @classmethod
    def needed(cls) -> frozenset[str]:
        return frozenset({"name", "type", "config", "description"})


class ToolAnswer(BaseModel):
    id: str = Field(description="Of a worker's tool: its name.")
    name: str = Field(description="As models call it.")
    description: str
    type: ToolType = Field(description="custom: of a Python module or package of yours.")
    of_workspace: bool = Field(description="Whether it is the workspace's own, and can be changed.")
    effect: str = Field(description="What a second run of a call would do: repeatable, idempotent, or none (known).")
    enabled: bool = Field(
        description="Whether agents are given it where their run does not say otherwise. The workspace's own are given "
        "to those that name them."
    )
    config: JSON = Field(description="Empty for a worker's tool.")
    input_schema: JSON
    output_schema: JSON | None
    timeout_seconds: int | None
    project_id: str | None
    metadata: JSON
    version: int | None = Field(description="Null for a worker's tool, as its times.")
    created_at: Timestamp | None
    updated_at: Timestamp | None

    @classmethod
    def of(cls, row: Tool) -> Self:
        same = ("id", "name", "description", "type", "effect", "config", "input_schema", "output_schema")
        more = ("timeout_seconds", "metadata", "version", "created_at", "updated_at")
        fields = {name: getattr(row, name) for name in (*same, *more)}
        return cls(of_workspace=True, enabled=False, project_id=row.project, **fields)

    @classmethod
    def of_worker(cls, card: ToolCard) -> Self:
        same = ("name", "description", "type", "effect", "enabled", "input_schema")
        none: JSON = dict.fromkeys(
            ("output_schema", "timeout_seconds", "project_id", "version", "created_at", "updated_at")
        )
        fields = {name: getattr(card, name) for name in same}
        return cls(id=card.name, of_workspace=False, config={}, metadata={}, **none, **fields)


class TrialBody(Body):
    input: JsonObject = Field(default={}, description="The arguments.")
    wait_seconds: Annotated[float, Field(ge=0, le=30)] = Field(
        default=10, description="How long the answer may wait for the call's end; then it is 202."
    )

    model_config = ConfigDict(json_schema_extra={"examples": [{"input": {"city": "Oslo"}}]})


class TrialAnswer(BaseModel):
    run_id: str = Field(description="GET /api/runs/{run_id} has the same once it has ended.")
    status: RunStatus
    ok: bool | None = Field(description="Whether the call succeeded; null where that is not known (yet).")
    content: str | None = Field(description="What a model would read.")
    output: Any = Field(description="What the output schema was asked of.")
    error_code: str | None
    error: JSON | None = Field(description="Why there is no result: the run failed.")

    @classmethod
    async def of(cls, payloads: Payloads, run: Run) -> Self:
        """Raises AppError for an output that is lost."""
        result = (await payloads.value(run.output, run.output_ref)) or {}
        return cls(
            run_id=run.id,
            status=run.status,
            ok=result.get("ok", False if run.status is RunStatus.FAILED else None),
            content=result.get("content"),
            output=result.get("data", {}).get("output"),
            error_code=result.get("error_code"),
            error=run.error,
        )
