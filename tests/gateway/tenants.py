"""Tenants beside each other, each with one of everything; and what there is to ask of each route.

A route with a parameter that is not in NEUTRAL needs a way to make such a thing, in `_seeds`: without one it cannot be
judged, and tests/gateway/test_tenants.py fails.
"""

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from fastapi.routing import RouteContext, iter_route_contexts

from gateway.scopes import scope_of
from modem.archive import Archiver
from shared.ids import SHARDS
from shared.threads.archiving import Archiving
from shared.types import JSON, Scope
from shared.workers.registry import WorkerRegistry
from tests.gateway.support import Gateway
from tests.workflow.support import Playbook, a_runtime
from workflow.engine.durable import durable
from workflow.engine.step import Step
from workflow.runner import Runner, Signals

BODIES: dict[str, JSON] = {"publishEvent": {"name": "go"}, "retryRun": {}, "testTool": {"wait_seconds": 0}}
"""By operation: instead of the example in its description, which would not do here."""
NEUTRAL = {"path": "notes.txt", "port": "8080", "name": "bash"}
"""Parameters that name nothing of a tenant's."""


async def ask(step: Step, input: Any) -> Any:
    return await step.approve(input, name="question")


@dataclass(frozen=True)
class Tenant:
    """Somebody with a key that may do everything, in a workspace or in one project of it."""

    client: httpx.AsyncClient
    seeds: dict[str, str]
    """By the name of the parameter: the id of something that is this tenant's."""


@dataclass(frozen=True)
class Route:
    method: str
    path: str
    name: str
    scope: Scope | None
    described: JSON
    """The operation, in OpenAPI's words; empty where it is hidden."""

    @property
    def parameters(self) -> list[str]:
        return re.findall(r"{(\w+)", self.path)

    @property
    def own(self) -> list[str]:
        """Parameters of the path that name something of a tenant's."""
        return [name for name in self.parameters if name not in NEUTRAL]

    def url(self, seeds: dict[str, str]) -> str:
        known = NEUTRAL | seeds
        return re.sub(r"{(\w+)(?::path)?}", lambda match: known[match[1]], self.path)

    def query_ids(self, seeds: dict[str, str]) -> list[str]:
        names = [each["name"] for each in self.described.get("parameters", ()) if each.get("in") == "query"]
        return [name for name in names if name in seeds]


def routes_of(gateway: Gateway, schema: JSON) -> Iterator[Route]:
    """Those of HTTP, once: /api/v1 is the same as /api, and so is what the root has of it and does not describe."""
    contexts = list(iter_route_contexts(gateway.app.routes))
    there = {str(context.path) for context in contexts}
    for context in contexts:
        path = str(context.path)
        twin = f"/api{path}" in there and scope_of(context) is not None and path not in schema["paths"]
        if not (twin or path.startswith("/api/v1/")):
            yield from _routes(context, schema)


def _routes(context: RouteContext, schema: JSON) -> Iterator[Route]:
    path, scope = str(context.path), scope_of(context)
    for method in sorted((context.methods or {"GET"}) - {"HEAD"}):
        described = schema["paths"].get(re.sub(":path}", "}", path), {}).get(method.lower(), {})
        yield Route(method, path, described.get("operationId", f"{method} {path}"), scope, described)


def body_of(route: Route, schema: JSON) -> dict[str, Any]:
    """The example that the description gives, as arguments of httpx."""
    content = route.described.get("requestBody", {}).get("content", {})
    if "application/json" not in content:
        return {"content": b"x"} if content else {}
    examples = _body_schema(route, schema).get("examples") or [{}]
    return {"json": dict(BODIES.get(route.name, examples[0]))}


def body_ids(route: Route, schema: JSON, seeds: dict[str, str]) -> list[str]:
    return [name for name in _body_schema(route, schema).get("properties", {}) if name in seeds]


def _body_schema(route: Route, schema: JSON) -> JSON:
    content = route.described.get("requestBody", {}).get("content", {})
    found: JSON = content.get("application/json", {}).get("schema", {})
    choices = [found, *found.get("anyOf", ())]
    references = [choice["$ref"] for choice in choices if "$ref" in choice]
    return schema["components"]["schemas"][references[0].rpartition("/")[2]] if references else {}


async def status_of(client: httpx.AsyncClient, route: Route, url: str, **request: Any) -> tuple[int, str]:
    """The answer's status and text; of a stream, which has no end, the status."""
    async with client.stream(route.method, url, **request) as answer:
        endless = answer.headers.get("content-type", "").startswith("text/event-stream")
        return answer.status_code, "" if endless else (await answer.aread()).decode(errors="replace")


async def new_key(gateway: Gateway, workspace: str, **body: Any) -> str:
    headers = {"X-Workspace-Id": workspace}
    answer = await gateway.client.post("/api/keys", json={"name": "a key", **body}, headers=headers)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["key"])


async def new_workspace(gateway: Gateway, slug: str) -> str:
    answer = await gateway.client.post("/api/workspaces", json={"slug": slug, "name": slug})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def new_project(gateway: Gateway, workspace: str, name: str) -> str:
    headers = {"X-Workspace-Id": workspace}
    answer = await gateway.client.post("/api/projects", json={"name": name}, headers=headers)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


@asynccontextmanager
async def client_of(gateway: Gateway, key: str | None) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"X-API-Key": key} if key else {}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}", headers=headers, timeout=20) as client:
        yield client


@asynccontextmanager
async def tenant_of(gateway: Gateway, workspace: str, project: str | None = None) -> AsyncIterator[Tenant]:
    key = await new_key(gateway, workspace, scopes=["admin"], project_id=project)
    async with client_of(gateway, key) as client:
        yield Tenant(client, await _seeds(gateway, client, workspace, project))


async def _seeds(gateway: Gateway, client: httpx.AsyncClient, workspace: str, project: str | None) -> dict[str, str]:
    made = {
        "workspace_id": workspace,
        "project_id": project or await new_project(gateway, workspace, "of their own"),
        "key_id": await _posted(client, "/api/keys", {"name": "another"}, "id"),
        "thread_id": await _posted(client, "/api/agent/initiate", {}, "thread_id"),
    }
    agent = await _posted(client, "/api/agents", {"name": "theirs", "definition_id": "chat"}, "id")
    message = await _posted(client, f"/api/agents/{agent}/messages", {"content": "hello"}, "id")
    made |= {"agent_id": agent, "message_id": message, **await _catalogue(client, agent)}
    made["run_id"] = await waiting_run(gateway, client, thread_id=made["thread_id"])
    steps = (await client.get(f"/api/runs/{made['run_id']}/steps")).json()["items"]
    return {**made, "step_id": steps[0]["step_id"]}


async def _catalogue(client: httpx.AsyncClient, agent: str) -> dict[str, str]:
    tool = {"name": f"tool_of_{agent}", "type": "http", "config": {"url": "https://a.test/"}}
    ends = [{"id": name, "type": name} for name in ("start", "end")]
    graph = {"nodes": ends, "edges": [{"id": "e", "from_node_id": "start", "to_node_id": "end"}]}
    return {
        "team_id": await _posted(client, "/api/teams", {"name": "theirs", "leader_agent_id": agent}, "id"),
        "tool_id": await _posted(client, "/api/tools", tool, "id"),
        "workflow_id": await _posted(client, "/api/workflows", {"name": "theirs", "graph": graph}, "id"),
        "task_id": await _posted(client, "/api/tasks", {"name": "theirs"}, "id"),
    }


async def _posted(client: httpx.AsyncClient, path: str, body: JSON, name: str) -> str:
    answer = await client.post(path, json=body)
    assert answer.is_success, answer.text
    return str(answer.json()[name])


async def waiting_run(gateway: Gateway, client: httpx.AsyncClient, **body: str) -> str:
    """A run, as far as where it waits for a human."""
    question = {"runnable_type": "function", "runnable_id": "ask", **body}
    run_id = await _posted(client, "/api/runs", question, "run_id")
    runtime = a_runtime(Playbook([]), functions=[durable("ask")(ask)])
    await Runner(gateway.app.state.services.outside, runtime).execute(run_id, "w1", Signals())
    return run_id


async def archive_all(gateway: Gateway) -> None:
    """What an archiver does to all that is there."""
    services, redis = gateway.app.state.services, gateway.redis
    payloads, archiving = services.store.payloads, Archiving(redis, patience_seconds=2)
    archiver = Archiver(services.settings.archive, services.db, payloads, archiving, WorkerRegistry(redis))
    await archiver.tick(range(SHARDS))
