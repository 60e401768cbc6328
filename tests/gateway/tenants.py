"""Tenants beside each other, each with one of everything; and what there is to ask of each route.

A route with a parameter that is not in NEUTRAL needs a way to make such a thing, in `_seeds`: without one it cannot be
judged, and tests/gateway/test_tenants.py fails.
"""

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import httpx
from fastapi.routing import APIWebSocketRoute, RouteContext, iter_route_contexts

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

BODIES: dict[str, JSON] = {
    "publishEvent": {"name": "go"},
    "retryRun": {},
    "rollbackContext": {"version": 1},
    "createRun": {"runnable_type": "agent", "input": {"task": "x"}},
    "createTask": {"name": "x", "runnable_type": "agent"},
    "updateTask": {"runnable_type": "agent"},
    "testTool": {"wait_seconds": 0},
}
"""By operation: instead of the example in its description, which would not do here."""
NEUTRAL = {"path": "notes.txt", "port": "8080", "name": "bash"}
"""Parameters that name nothing of a tenant's."""
ALIASES = dict.fromkeys(("runnable_id", "agent", "leader_agent_id", "member_agent_ids"), "agent_id")
"""Fields that take the id of something under another name."""
NO_IDS = {
    "last_id": "a place in a stream",
    "session_id": "a name that the tenant gives",
    "definition_id": "a kind of agents, the same for all",
    "resource_id": "a text that entries are searched for",
}
"""Fields that end like one and name nothing of a tenant's that could be looked up."""
HANDSHAKE = {
    **{"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13"},
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
}


async def ask(step: Step, input: Any) -> Any:
    return await step.approve(input, name="question")


@dataclass(frozen=True)
class Tenant:
    """Somebody with a key that may do everything, in a workspace or in one project of it."""

    key: str
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
    """The operation, in OpenAPI's words; empty where it is hidden, and no other name of one that is not."""

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

    @property
    def query(self) -> list[str]:
        return [each["name"] for each in self.described.get("parameters", ()) if each.get("in") == "query"]


def routes_of(gateway: Gateway, schema: JSON) -> Iterator[Route]:
    """Those that there are, once: /api/v1 is the same as /api."""
    for context in iter_route_contexts(gateway.app.routes):
        if not str(context.path).startswith("/api/v1/"):
            yield from _routes(context, schema)


def _routes(context: RouteContext, schema: JSON) -> Iterator[Route]:
    path, scope = str(context.path), scope_of(context)
    if isinstance(context.original_route, APIWebSocketRoute):
        known = {socket["path"]: socket for socket in schema["x-websockets"]}
        yield Route("WS", path, known[path]["name"], scope, known[path])
        return
    for method in sorted((context.methods or {"GET"}) - {"HEAD"}):
        written = re.sub(":path}", "}", path)
        item = schema["paths"].get(written) or schema["paths"].get(f"/api{written}", {})
        described = item.get(method.lower(), {})
        yield Route(method, path, described.get("operationId", f"{method} {path}"), scope, described)


def body_of(route: Route, schema: JSON, seeds: Mapping[str, str] = MappingProxyType({})) -> dict[str, Any]:
    """The example that the description gives, as arguments of httpx; where it names something, that of the seeds."""
    content = route.described.get("requestBody", {}).get("content", {})
    if "application/json" not in content:
        return {"content": b"x"} if content else {}
    examples = _body_schema(route, schema).get("examples") or [{}]
    example = dict(BODIES.get(route.name, examples[0]))
    return {"json": example | fields_with(ids_among(list(example), seeds))}


def body_fields(route: Route, schema: JSON) -> list[str]:
    return list(_body_schema(route, schema).get("properties", {}))


def fields_with(ids: dict[str, str]) -> JSON:
    return {name: [seed] if name.endswith("s") else seed for name, seed in ids.items()}


def ids_among(fields: list[str], seeds: Mapping[str, str]) -> dict[str, str]:
    """Those that name something of a tenant's, and what of the seeds they take."""
    return {name: seeds[ALIASES.get(name, name)] for name in fields if ALIASES.get(name, name) in seeds}


def unknown_ids(fields: list[str], seeds: Mapping[str, str]) -> list[str]:
    """Those that look as if they did, and nobody knows."""
    like_ids = [name for name in fields if re.search(r"(_id|Id)s?$", name)]
    return [name for name in like_ids if name not in NO_IDS and not ids_among([name], seeds)]


def _body_schema(route: Route, schema: JSON) -> JSON:
    content = route.described.get("requestBody", {}).get("content", {})
    found: JSON = content.get("application/json", {}).get("schema", {})
    choices = [found, *found.get("anyOf", ())]
    references = [choice["$ref"] for choice in choices if "$ref" in choice]
    return schema["components"]["schemas"][references[0].rpartition("/")[2]] if references else {}


async def status_of(client: httpx.AsyncClient, route: Route, url: str, **request: Any) -> tuple[int, str]:
    """The answer's status and text; of a stream and a WebSocket, which have no end, the status."""
    if route.method == "WS":
        request = {"headers": HANDSHAKE | request.get("headers", {})}
    async with client.stream("GET" if route.method == "WS" else route.method, url, **request) as answer:
        media = answer.headers.get("content-type", "")
        endless = answer.status_code == 101 or media.startswith("text/event-stream")
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
        yield Tenant(key, client, await _seeds(gateway, client, workspace, project))


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
    await _posted(client, f"/api/agents/{agent}/context", {"data": {}}, "version")
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
