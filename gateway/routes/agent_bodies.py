"""What requests about agents, their contexts and their messages may say, in the words of the source designs too."""

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from gateway.routes.agent_servers import McpServers
from gateway.routes.bodies import INTEGRAL, Body, JsonObject, LineName, Name, RowBody, Rules, Text, Version
from gateway.routes.row_bodies import RowFields, RowPatch, aliases
from shared.config.sandboxes import Network, Provider
from shared.config.types import MIB, HostPattern
from shared.db.agents import AgentStatus
from shared.types import JSON

PROMPT_CHARS = 100_000
DEFAULT_DEFINITION = "agent"

Temperature = Annotated[float, Field(ge=0, le=2)]


class Limits(Body):
    """Of each of its runs, where the request does not say otherwise."""

    max_turns: Annotated[int, Field(ge=1, le=10_000), INTEGRAL] | None = None
    max_seconds: Annotated[float, Field(gt=0, le=10**7)] | None = None
    max_cost: Annotated[float, Field(gt=0, le=10**6)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=10**10), INTEGRAL] | None = None


Hosts = Annotated[list[HostPattern], Field(max_length=100)]


class AgentSandbox(Body):
    """What it does not say is as the definition and the configuration say; it cannot have more than they give."""

    enabled: bool = Field(default=True, description="Whether its runs have a sandbox.")
    provider: Provider | None = Field(default=None, description="Refused where sandboxes are another's.")
    network: Network | None = Field(default=None, description="allow: `allowed_hosts` only.")
    allowed_hosts: Hosts | None = Field(default=None, description="With network `allow`. `*.` in front: all below.")
    memory_bytes: Annotated[int, Field(ge=64 * MIB), INTEGRAL] | None = Field(
        default=None, description="This and the following: of `local` sandboxes."
    )
    processes: Annotated[int, Field(ge=16), INTEGRAL] | None = None
    disk_bytes: Annotated[int, Field(ge=MIB), INTEGRAL] | None = None


class ModelConfig(Body):
    """Source design 000's way to name a model."""

    provider: Name | None = None
    name: Name = Field(validation_alias=aliases("name", "id", "model"))
    temperature: Temperature | None = None


class ToolConfig(Body):
    """Source design 000's way to name tools."""

    tools: list[Name]


_OTHERWISE = frozenset(
    {
        *("definition_id", "activate", "status"),
        *("model", "model_provider", "model_name", "of_model", "tools", "tool_config", "mcp_servers"),
    }
)
"""Fields that are no columns as they are."""


class AgentFields(RowFields):
    """What an agent is made of. What is null or not given is as its definition says."""

    model: Name | None = Field(default=None, description="A LiteLLM model name.")
    model_provider: Name | None = Field(
        default=None,
        validation_alias=aliases("model_provider", "modelProvider"),
        description="With model_name, in place of model. `local` is the server at llm.base_url, or Ollama.",
    )
    model_name: Name | None = Field(default=None, validation_alias=aliases("model_name", "modelName"))
    of_model: ModelConfig | None = Field(default=None, validation_alias=aliases("model_config", "modelConfig"))
    prompt: Annotated[Text, Field(max_length=PROMPT_CHARS)] | None = Field(
        default=None,
        validation_alias=aliases("prompt", "system_prompt", "systemPrompt"),
        description="Its system prompt.",
    )
    temperature: Temperature | None = None
    tools: list[Name] | None = Field(default=None, description="Those that it may use; none if empty.")
    tool_config: ToolConfig | None = Field(default=None, validation_alias=aliases("tool_config", "toolConfig"))
    limits: Limits | None = None
    permissions: Rules | None = Field(
        default=None,
        description="Rules for its calls, as TOOL: allow|ask|deny [PATTERN], beside those of its definition, of the "
        "run and of the configuration: the strictest answer holds.",
    )
    mcp_servers: McpServers | None = Field(
        default=None, description="MCP servers of its own, by name: their tools are mcp__NAME__TOOL."
    )
    sandbox: AgentSandbox | None = None
    knowledge_config: JsonObject | None = Field(
        default=None,
        validation_alias=aliases("knowledge_config", "knowledgeConfig"),
        description="Kept for you and for the hooks of its definition: no run reads it.",
    )
    storage_config: JsonObject | None = Field(
        default=None,
        validation_alias=aliases("storage_config", "storageConfig"),
        description="Kept for you and for the hooks of its definition: no run reads it.",
    )

    @model_validator(mode="after")
    def _says_each_once(self) -> Self:
        if len([name for name in (self.model, self.model_name, self.of_model) if name is not None]) > 1:
            raise ValueError("a model is named once: by model, by model_provider and model_name, or by model_config")
        if self.model_provider is not None and self.model_name is None:
            raise ValueError("model_provider needs model_name")
        if self.tools is not None and self.tool_config is not None:
            raise ValueError("tools are named once: by tools or by tool_config")
        return self

    def values(self, *, base_url: str | None) -> JSON:
        """The columns that the request gives, in our words. `base_url`: of the server for local models."""
        given = self.model_fields_set
        found = {name: value for name, value in self.columns().items() if name not in _OTHERWISE}
        if given & {"model", "model_name", "of_model"}:
            found["model"] = self._model(base_url)
        if self.of_model is not None and self.of_model.temperature is not None:
            found.setdefault("temperature", self.of_model.temperature)
        if "mcp_servers" in given:
            found["mcp_servers"] = {name: each.model_dump() for name, each in (self.mcp_servers or {}).items()}
        if given & {"tools", "tool_config"}:
            found["tools"] = self.tool_config.tools if self.tool_config else self.tools
        return found

    def _model(self, base_url: str | None) -> str | None:
        if self.of_model is not None:
            return _full_name(self.of_model.provider, self.of_model.name, base_url)
        if self.model_name is not None:
            return _full_name(self.model_provider, self.model_name, base_url)
        return self.model


def _full_name(provider: str | None, name: str | None, base_url: str | None) -> str | None:
    if provider == "local":
        provider = "openai" if base_url else "ollama_chat"
    return f"{provider}/{name}" if provider and name and not name.startswith(f"{provider}/") else name


class NewAgentBody(AgentFields):
    name: Name
    definition_id: Name = Field(
        default=DEFAULT_DEFINITION,
        validation_alias=aliases("definition_id", "definitionId", "definition"),
        description="What kind of agent it is: see GET /api/agents/definitions.",
    )
    activate: bool | None = Field(
        default=None, description="Whether it takes runs at once. Unset: yes, unless it names its definition_id."
    )

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "Reviewer of the billing service",
                    "definition_id": "reviewer",
                    "prompt": "You review the billing service. Money is in cents, always.",
                    "limits": {"max_cost": 0.5},
                    "activate": True,
                }
            ]
        }
    )

    @property
    def begins_active(self) -> bool:
        """Designs 000 and 003 know neither definitions nor activation, design 004 both."""
        return "definition_id" not in self.model_fields_set if self.activate is None else self.activate


class AgentPatch(AgentFields, RowPatch):
    name: Name | None = None
    status: AgentStatus | None = Field(default=None, strict=False, description="As by activate, deactivate, shutdown.")

    model_config = ConfigDict(json_schema_extra={"examples": [{"temperature": 0.2, "expected_version": 3}]})

    @classmethod
    def needed(cls) -> frozenset[str]:
        return frozenset({"name", "status"})


class ContextBody(RowBody):
    data: JsonObject = Field(description="All of the document: it takes the place of the version before.")
    note: Annotated[str, Field(max_length=1000)] = Field(default="", description="What has changed, and why.")
    expected_version: Version | None = Field(
        default=None, description="The version that was read (0: there was none). 409 where there is another by now."
    )

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"data": {"goal": "ship"}, "note": "a first goal", "expected_version": 1}]}
    )


class RollbackBody(RowBody):
    version: Annotated[int, Field(ge=1, le=2**31 - 1), INTEGRAL] = Field(description="Whose data the new version has.")
    note: Annotated[str, Field(max_length=1000)] = ""
    expected_version: Version | None = None

    model_config = ConfigDict(json_schema_extra={"examples": [{"version": 2}]})


class NewMessageBody(RowBody):
    content: Annotated[Text, Field(max_length=100_000)]
    role: Literal["user", "agent", "system"] = "user"
    sender: Name | None = Field(default=None, description="Who says it, in the client's own terms.")
    data: JsonObject = Field(
        default={}, validation_alias=aliases("data", "metadata"), description="What programs should know of it."
    )

    model_config = ConfigDict(json_schema_extra={"examples": [{"content": "The deploy is through.", "sender": "ci"}]})


class ChatBody(Body):
    agent: Name = Field(description="An agent's id, or a kind of agents such as `chat`.")
    input: Annotated[Text, Field(max_length=1_000_000)]
    session_id: LineName | None = Field(
        default=None,
        validation_alias=aliases("session_id", "sessionId"),
        description="What is said under it is one conversation. Unset: a new one.",
    )

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"agent": "chat", "input": "Hello!", "session_id": "s-17"}]}
    )
