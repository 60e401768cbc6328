"""What answers about agents, their contexts and their messages say."""

from typing import Self

from pydantic import BaseModel, Field

from gateway.routes.agent_servers import shown
from gateway.routes.answers import Timestamp
from shared.db.agents import Agent, AgentStatus
from shared.db.contexts import ContextVersion
from shared.db.messages import AgentMessage
from shared.threads.types import Run
from shared.types import JSON, RunStatus
from shared.workers.catalogue import Source


class DefinitionAnswer(BaseModel):
    id: str
    description: str
    source: Source = Field(description="builtin, config (agents.definitions) or code (agents.registry_modules).")
    prompt: str | None = Field(description="Null: the settings'. So for model, temperature and tools.")
    model: str | None
    temperature: float | None
    tools: list[str] | None
    limits: JSON
    permissions: list[str] | None
    sandbox: bool
    sandbox_config: JSON = Field(description="What bounds its sandbox, in the words of an agent's.")
    hooks: bool = Field(description="Whether its code has something to do when its agents are activated and so on.")


class HooksAnswer(BaseModel):
    run_id: str = Field(description="The run that calls them.")
    status: RunStatus | None = Field(description="Its status; null in lists, and when it is long gone.")


class AgentAnswer(BaseModel):
    id: str
    name: str
    description: str
    definition_id: str
    project_id: str | None
    status: AgentStatus
    model: str | None = Field(description="Null: the definition's. So for prompt, temperature, tools and limits.")
    model_provider: str | None
    model_name: str | None
    prompt: str | None
    temperature: float | None
    tools: list[str] | None
    limits: JSON
    permissions: list[str] | None
    mcp_servers: JSON = Field(description="Values of headers and variables are null: they are not shown again.")
    sandbox: JSON
    knowledge_config: JSON = Field(description="Kept, and given to the hooks of its definition: no run reads it.")
    storage_config: JSON = Field(description="As knowledge_config.")
    metadata: JSON
    hooks: HooksAnswer | None = Field(description="What became of its definition's code at the last change of status.")
    version: int
    created_at: Timestamp
    updated_at: Timestamp

    @classmethod
    def of(cls, agent: Agent, hook_run: Run | None = None) -> Self:
        provider, slash, name = (agent.model or "").partition("/")
        return cls(
            id=agent.id,
            name=agent.name,
            description=agent.description,
            definition_id=agent.definition,
            project_id=agent.project,
            status=agent.status,
            model=agent.model,
            model_provider=provider if slash else None,
            model_name=name if slash else agent.model,
            prompt=agent.prompt,
            temperature=agent.temperature,
            tools=agent.tools,
            limits=agent.limits,
            permissions=agent.permissions,
            mcp_servers=shown(agent.mcp_servers),
            sandbox=agent.sandbox,
            knowledge_config=agent.knowledge,
            storage_config=agent.storage,
            metadata=agent.metadata,
            hooks=HooksAnswer(run_id=agent.hook_run, status=hook_run.status if hook_run else None)
            if agent.hook_run
            else None,
            version=agent.version,
            created_at=agent.created_at,
            updated_at=agent.updated_at,
        )


class ContextAnswer(BaseModel):
    agent_id: str
    context_name: str
    version: int
    data: JSON
    note: str
    restored_version: int | None = Field(description="The older version that it is equal to, after a rollback.")
    created_by: str | None = Field(description="The id of the key that wrote it.")
    created_at: Timestamp

    @classmethod
    def of(cls, agent: Agent, version: ContextVersion) -> Self:
        return cls(
            agent_id=agent.id,
            context_name=version.name,
            version=version.number,
            data=version.data,
            note=version.note,
            restored_version=version.restored,
            created_by=version.created_by,
            created_at=version.created_at,
        )


class AgentMessageAnswer(BaseModel):
    id: str
    agent_id: str
    role: str
    sender: str | None
    content: str
    data: JSON
    created_at: Timestamp
    ack_until: Timestamp = Field(description="When it is too late to acknowledge it.")
    acknowledged_at: Timestamp | None

    @classmethod
    def of(cls, message: AgentMessage) -> Self:
        return cls(agent_id=message.agent, **{name: getattr(message, name) for name in SHOWN})


SHOWN = ("id", "role", "sender", "content", "data", "created_at", "ack_until", "acknowledged_at")
