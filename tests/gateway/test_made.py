"""What is made says where it is: to its maker, and in the audit log."""

from collections.abc import AsyncIterator

import pytest

from shared.types import JSON
from tests.gateway.support import Gateway
from tests.gateway.tenants import Tenant, body_of, new_workspace, routes_of, tenant_of
from tests.gateway.test_agents import tell
from tests.workflow.support import Playbook, a_runtime
from workflow.runner import Runner, Signals

PARTS = {
    "publishEvent": "an event is read by those who wait for it",
    "writeContext": "a version is read with its context",
    "rollbackContext": "a version is read with its context",
    "sendAgentMessage": "a message is read with its agent's",
}
"""What is made and has no address of its own, and why."""
OPERATOR = {"createWorkspace"}


@pytest.fixture
async def owner(gateway: Gateway) -> AsyncIterator[Tenant]:
    await tell(gateway)
    async with tenant_of(gateway, await new_workspace(gateway, "makers")) as owner:
        yield owner


async def canceled(gateway: Gateway, owner: Tenant) -> None:
    """Their run, so that it can be retried."""
    run_id = owner.seeds["run_id"]
    await owner.client.post(f"/api/runs/{run_id}/cancel")
    await Runner(gateway.app.state.services.outside, a_runtime(Playbook([]))).execute(run_id, "w1", Signals())


async def test_what_is_made_is_where_its_answer_and_the_audit_log_say(gateway: Gateway, owner: Tenant) -> None:
    schema = gateway.app.openapi()
    makers = [route for route in routes_of(gateway, schema) if "201" in route.described.get("responses", {})]
    made = [each for each in makers if each.name not in PARTS]
    assert {each.name for each in makers} >= PARTS.keys() | {"createAgent", "createRun", "runTask", "createKey"}
    await canceled(gateway, owner)
    for route in made:
        client = gateway.client if route.name in OPERATOR else owner.client
        answer = await client.post(route.url(owner.seeds), **body_of(route, schema, owner.seeds))
        assert answer.status_code == 201, f"{route.name}: {answer.text}"
        found = await client.get(answer.headers["location"])
        assert found.status_code == 200, route.name
        assert found.json().get("run_id", found.json().get("id")) in answer.headers["location"]
        assert "Location" in route.described["responses"]["201"]["headers"], route.name
    await gateway.app.state.services.audit.write()
    entries = (await owner.client.get("/api/audit?limit=200&outcome=done")).json()["items"]
    unknown = {entry["action"] for entry in entries if entry["resource_id"] is None}
    assert unknown <= {"publishEvent"}


async def test_answers_have_the_tags_that_are_described(gateway: Gateway, owner: Tenant) -> None:
    schema = gateway.app.openapi()
    tagged, untagged = list[str](), list[str]()
    for route in routes_of(gateway, schema):
        done: list[JSON] = [found for status, found in route.described.get("responses", {}).items() if status < "204"]
        if not done or "application/json" not in done[0].get("content", {}) or route.method == "DELETE":
            continue
        client = gateway.client if route.name in OPERATOR else owner.client
        answer = await client.request(
            route.method, route.url(owner.seeds), **body_of(route, schema, owner.seeds), timeout=5
        )
        if answer.is_success:
            (tagged if "etag" in answer.headers else untagged).append(route.name)
            assert ("etag" in answer.headers) is ("ETag" in done[0].get("headers", {})), route.name
    assert {"getThread", "updateRun", "createTeam", "getContext", "activateAgent", "updateProject"} <= set(tagged)
    assert {"createRun", "listThreads", "initiateThread"} <= set(untagged)
