"""What runs are made of: agents, teams, tools, workflows, tasks; and whose they are: projects, workspaces, keys."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from trunkline.aio.http import AsyncHttp, AsyncPages
from trunkline.aio.resource import AsyncResource, AsyncRows
from trunkline.models import (
    JSON,
    Agent,
    AgentDefinition,
    AgentMessage,
    Context,
    Key,
    Project,
    Run,
    Task,
    Team,
    Tool,
    Workflow,
    WorkflowVersion,
    Workspace,
)
from trunkline.requests import at, given, if_match


class AsyncAgents(AsyncRows[Agent]):
    """Configured agents. `contexts` are their documents, `messages` what is said to them."""

    path = "agents"
    model = Agent

    def __init__(self, http: AsyncHttp) -> None:
        super().__init__(http)
        self.contexts = AsyncContexts(http)
        self.messages = AsyncAgentMessages(http)

    def definitions(self) -> AsyncPages[AgentDefinition]:
        """The kinds of agents that the workers know."""
        return self._http.pages(AgentDefinition, at("agents", "definitions"))

    async def activate(self, agent_id: str) -> Agent:
        return await self._http.post(Agent, at("agents", agent_id, "activate"))

    async def deactivate(self, agent_id: str) -> Agent:
        return await self._http.post(Agent, at("agents", agent_id, "deactivate"))

    async def shutdown(self, agent_id: str) -> Agent:
        return await self._http.post(Agent, at("agents", agent_id, "shutdown"))


class AsyncContexts(AsyncResource):
    """Named, versioned documents of an agent."""

    async def get(self, agent_id: str, context_name: str = "default") -> Context:
        return await self._http.get(Context, at("agents", agent_id, "context"), {"context_name": context_name})

    async def write(self, agent_id: str, context_name: str = "default", **fields: Any) -> Context:
        """Makes a version. With `expected_version`, Conflict where that is not the present one."""
        return await self._http.post(
            Context, at("agents", agent_id, "context"), {"context_name": context_name, **fields}
        )

    def versions(self, agent_id: str, context_name: str = "default") -> AsyncPages[Context]:
        params = {"context_name": context_name}
        return self._http.pages(Context, at("agents", agent_id, "context", "versions"), params)

    async def rollback(self, agent_id: str, version: int, context_name: str = "default") -> Context:
        """A new version with what that one said."""
        body = {"context_name": context_name, "version": version}
        return await self._http.post(Context, at("agents", agent_id, "context", "rollback"), body)


class AsyncAgentMessages(AsyncResource):
    def list(self, agent_id: str) -> AsyncPages[AgentMessage]:
        return self._http.pages(AgentMessage, at("agents", agent_id, "messages"))

    async def send(self, agent_id: str, *, idempotency_key: str | None = None, **fields: Any) -> AgentMessage:
        return await self._http.post(AgentMessage, at("agents", agent_id, "messages"), fields, key=idempotency_key)


class AsyncTeams(AsyncRows[Team]):
    path = "teams"
    model = Team


class AsyncTools(AsyncRows[Tool]):
    """Built-in tools are listed beside your own."""

    path = "tools"
    model = Tool

    async def test(self, tool_id: str, **fields: Any) -> JSON:
        """Calls it."""
        return await self._http.post_any(at("tools", tool_id, "test"), fields)


class AsyncWorkflows(AsyncRows[Workflow]):
    path = "workflows"
    model = Workflow

    async def replace(self, workflow_id: str, *, version: int | None = None, **fields: Any) -> Workflow:
        """A new version of it."""
        return await self._http.put(
            Workflow, at("workflows", workflow_id), json=fields, headers=if_match(version), repeatable=version is None
        )

    def versions(self, workflow_id: str) -> AsyncPages[WorkflowVersion]:
        return self._http.pages(WorkflowVersion, at("workflows", workflow_id, "versions"))

    async def validate(self, **fields: Any) -> JSON:
        """What is wrong with a graph, without keeping it."""
        return await self._http.post_any(at("workflows", "validate"), fields)

    async def run(self, workflow_id: str, *, idempotency_key: str | None = None, **fields: Any) -> Run:
        return await self._http.post(Run, at("workflows", workflow_id, "runs"), fields, key=idempotency_key)

    def runs(self, workflow_id: str) -> AsyncPages[Run]:
        return self._http.pages(Run, at("workflows", workflow_id, "runs"))


class AsyncTasks(AsyncRows[Task]):
    path = "tasks"
    model = Task

    async def run(self, task_id: str, *, idempotency_key: str | None = None, **fields: Any) -> Run:
        return await self._http.post(Run, at("tasks", task_id, "runs"), fields, key=idempotency_key)


class AsyncProjects(AsyncRows[Project]):
    path = "projects"
    model = Project


class AsyncWorkspaces(AsyncRows[Workspace]):
    path = "workspaces"
    model = Workspace


class AsyncKeys(AsyncResource):
    """API keys. A key's secret stands in the answer that makes it, and nowhere else."""

    def list(self) -> AsyncPages[Key]:
        return self._http.pages(Key, at("keys"))

    async def create(
        self, *, name: str | None = None, scopes: Sequence[str] | None = None, expires_at: datetime | None = None
    ) -> Key:
        expires = expires_at.isoformat() if expires_at else None
        return await self._http.post(Key, at("keys"), given(name=name, scopes=scopes, expires_at=expires))

    async def revoke(self, key_id: str) -> None:
        """At once."""
        await self._http.delete(at("keys", key_id))
