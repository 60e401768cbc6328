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
    """Named, versioned documents of an agent. `expected_version` (0: none yet): Conflict where there is another."""

    async def get(self, agent_id: str, context_name: str = "default") -> Context:
        return await self._http.get(Context, at("agents", agent_id, "context"), {"context_name": context_name})

    async def write(
        self,
        agent_id: str,
        data: JSON,
        context_name: str = "default",
        *,
        note: str | None = None,
        expected_version: int | None = None,
        idempotency_key: str | None = None,
    ) -> Context:
        """Makes a version: `data` takes the place of all that was."""
        path, params = at("agents", agent_id, "context"), {"context_name": context_name}
        body = {"data": data, **given(note=note, expected_version=expected_version)}
        return await self._http.post(Context, path, body, params=params, key=idempotency_key)

    def versions(self, agent_id: str, context_name: str = "default") -> AsyncPages[Context]:
        """Newest first."""
        params = {"context_name": context_name}
        return self._http.pages(Context, at("agents", agent_id, "context", "versions"), params)

    async def rollback(
        self,
        agent_id: str,
        version: int,
        context_name: str = "default",
        *,
        note: str | None = None,
        expected_version: int | None = None,
    ) -> Context:
        """A new version with the data of that one."""
        path, params = at("agents", agent_id, "context", "rollback"), {"context_name": context_name}
        body = {"version": version, **given(note=note, expected_version=expected_version)}
        return await self._http.post(Context, path, body, params=params)


class AsyncAgentMessages(AsyncResource):
    """What is said to an agent."""

    def list(self, agent_id: str, **filters: Any) -> AsyncPages[AgentMessage]:
        """Newest first."""
        return self._http.pages(AgentMessage, at("agents", agent_id, "messages"), given(**filters))

    async def send(
        self,
        agent_id: str,
        content: str,
        *,
        role: str | None = None,
        sender: str | None = None,
        data: JSON | None = None,
        idempotency_key: str | None = None,
    ) -> AgentMessage:
        body = {"content": content, **given(role=role, sender=sender, data=data)}
        return await self._http.post(AgentMessage, at("agents", agent_id, "messages"), body, key=idempotency_key)

    async def acknowledge(self, agent_id: str, message_id: str) -> AgentMessage:
        return await self._http.post(AgentMessage, at("agents", agent_id, "messages", message_id, "ack"))


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
    """API keys of the workspace; for keys with the scope admin."""

    def list(self) -> AsyncPages[Key]:
        """Newest first."""
        return self._http.pages(Key, at("keys"))

    async def get(self, key_id: str) -> Key:
        return await self._http.get(Key, at("keys", key_id))

    async def create(
        self,
        name: str,
        *,
        scopes: Sequence[str] | None = None,
        project_id: str | None = None,
        expires_at: datetime | None = None,
    ) -> Key:
        """Its `key` is None where the answer to an earlier try was lost: revoke it then, and make another."""
        expires = expires_at.isoformat() if expires_at else None
        body = given(name=name, scopes=scopes, project_id=project_id, expires_at=expires)
        return await self._http.post(Key, at("keys"), body)

    async def revoke(self, key_id: str) -> None:
        """For ever, and at once."""
        await self._http.delete(at("keys", key_id))
