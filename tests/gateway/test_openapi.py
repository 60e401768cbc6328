"""The API's description is true, complete, and readable without any other host."""

import re
from typing import Any

import jsonschema
import pytest

from shared.types import JSON
from tests.gateway.support import Gateway

METHODS = {"get", "post", "put", "patch", "delete"}


async def description(gateway: Gateway) -> JSON:
    return dict((await gateway.client.get("/openapi.json")).json())


def operations(schema: JSON) -> list[tuple[str, str, JSON]]:
    return [(path, method, found) for path, item in schema["paths"].items() for method, found in item.items()]


async def test_each_operation_is_described_once_with_an_id_a_summary_and_its_errors(gateway: Gateway) -> None:
    schema = await description(gateway)
    assert schema["openapi"].startswith("3.1")
    found = operations(schema)
    assert {path for path, _, _ in found} >= {"/api/agent/{thread_id}/execute", "/api/runs/{run_id}/events", "/health"}
    assert not [path for path, _, _ in found if path.startswith("/api/v1")]
    ids = [operation["operationId"] for _, _, operation in found]
    assert len(ids) == len(set(ids))
    for path, method, operation in found:
        assert method in METHODS
        assert operation["summary"]
        assert operation["operationId"].startswith("update") or method != "patch"
        assert "422" not in operation["responses"]
        if path == "/api/session":
            assert operation["security"] == []
        elif path.startswith("/api"):
            assert {"401", "403", "404", "500", "503"} <= operation["responses"].keys(), path
            [scope] = {scope for way in operation["security"] for scopes in way.values() for scope in scopes}
            assert f"Scope: `{scope}`." in operation["description"]
        if operation.get("requestBody"):
            assert {"400", "413"} <= operation["responses"].keys(), path


async def test_all_references_of_the_description_lead_somewhere(gateway: Gateway) -> None:
    schema = await description(gateway)
    for reference in re.findall(r"'\$ref': '#/([^']+)'", str(schema)):
        place: Any = schema
        for part in reference.split("/"):
            place = place[part]


async def test_answers_are_as_described(gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    run_id = await gateway.finished_run(thread_id)
    schema = await description(gateway)
    asked = [
        ("get", "/", {}),
        ("get", "/health", {}),
        ("get", "/health/ready", {}),
        ("get", "/api/agent", {}),
        ("get", "/api/agent/{thread_id}", {}),
        ("get", "/api/agent/{thread_id}/runs", {}),
        ("get", "/api/agent/{thread_id}/messages", {}),
        ("get", "/api/runs/{run_id}", {}),
        ("get", "/api/runs/{run_id}/steps", {}),
        ("get", "/api/runs/{run_id}/events", {}),
        ("post", "/api/runs/{run_id}/cancel", {}),
        ("post", "/api/agent/initiate", {}),
        ("post", "/api/agent/{thread_id}/execute", {"task": "x"}),
        ("post", "/api/agent/{thread_id}/execute", {"task": "x", "tusk": 1}),
        ("get", "/api/agent/nope", {}),
        ("post", "/api/stream-tickets", {}),
    ]
    for method, template, body in asked:
        path = template.format(thread_id=thread_id, run_id=run_id)
        answer = await gateway.client.request(method, path, json=body or None)
        operation = schema["paths"][template.replace("nope", "{thread_id}")][method]
        media = operation["responses"][str(answer.status_code)]["content"][answer.headers["content-type"]]
        jsonschema.validate(answer.json(), {**media["schema"], "components": schema["components"]})


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_the_pages_load_nothing_from_elsewhere(gateway: Gateway, path: str) -> None:
    page = await gateway.client.get(path)
    assert page.headers["content-type"].startswith("text/html")
    linked = re.findall(r"""(?:src|href)=["']([^"']+)["']""", page.text)
    assert len(linked) >= 2
    for address in linked:
        assert address.startswith("/docs-assets/")
        assert (await gateway.client.get(address)).status_code == 200
    assert "//" not in page.text.replace("<!-- ", "").replace("<!DOCTYPE html>", "").split("<script>")[0]
    policy = page.headers["content-security-policy"]
    assert "http" not in policy
    assert policy.startswith("default-src 'none'")


async def test_the_root_names_what_is_here(gateway: Gateway) -> None:
    root = (await gateway.client.get("/")).json()
    assert root["name"] == "Trunkline"
    for link in ("docs", "openapi", "health"):
        assert (await gateway.client.get(root["links"][link])).status_code == 200


async def test_the_websockets_are_listed_beside_what_openapi_has_words_for(gateway: Gateway) -> None:
    listed = (await description(gateway))["x-websockets"]
    paths = ["/ws/agent/{thread_id}", "/ws/runs/{run_id}/logs", "/ws/agents/stream", "/ws/agents/{agent_id}"]
    expected = {f"{prefix}{path}" for prefix in ("", "/api", "/api/v1") for path in paths}
    assert {each["path"] for each in listed} == expected
    for each in listed:
        assert each["summary"]
        named = {parameter["name"]: parameter["in"] for parameter in each["parameters"]}
        assert {name for name, place in named.items() if place == "path"} == set(re.findall(r"{(\w+)}", each["path"]))
        assert {"last_id": "query", "ticket": "query"}.items() <= named.items()


async def test_each_operation_names_an_error_of_the_caller_and_no_parameter_is_null(gateway: Gateway) -> None:
    for path, _, operation in operations(await description(gateway)):
        assert any(status.startswith("4") for status in operation["responses"]), path
        for parameter in operation.get("parameters", []):
            assert {"type": "null"} not in parameter.get("schema", {}).get("anyOf", []), (path, parameter)


async def test_the_links_of_what_was_made_lead_to_it(gateway: Gateway) -> None:
    schema = await description(gateway)
    known = {operation["operationId"]: (path, operation) for path, _, operation in operations(schema)}
    made = {
        "initiateThread": ({}, "getThread"),
        "createRun": ({"input": {"task": "x"}}, "getRun"),
        "createProject": ({"name": "P"}, "getProject"),
        "createKey": ({"name": "K"}, "getKey"),
    }
    for maker, (body, taker) in made.items():
        path, operation = known[maker]
        answer = await gateway.client.post(path, json=body)
        link = operation["responses"][str(answer.status_code)]["links"][taker]
        ids = {name: answer.json()[place.rpartition("/")[2]] for name, place in link["parameters"].items()}
        assert (await gateway.client.get(known[taker][0].format(**ids))).status_code == 200
    for _, _, operation in operations(schema):
        for answer_described in operation["responses"].values():
            for link in answer_described.get("links", {}).values():
                taken = {each.get("name") for each in known[link["operationId"]][1]["parameters"]}
                assert link["parameters"].keys() <= taken


async def test_metrics_are_for_all_or_for_their_token(gateway: Gateway) -> None:
    schema = await description(gateway)
    assert schema["paths"]["/metrics"]["get"]["security"] == [{"metricsToken": []}, {}]
    assert schema["paths"]["/health"]["get"]["security"] == []
