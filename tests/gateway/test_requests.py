"""Bad input is refused with its place, and whatever goes wrong is told in one form that gives nothing away."""

import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from shared.config import ApiSettings
from tests.gateway.support import Gateway, serving, settings_for, until
from tests.gateway.test_agents import tell
from tests.support.databases import put_database

SMALL = ApiSettings(max_body_bytes=2000, max_task_chars=100, cors_origins=["https://console.example"])


@pytest.fixture
async def gateway(redis_url: str, tmp_path: Path) -> AsyncIterator[Gateway]:
    put_database(tmp_path)
    async with serving(settings_for(redis_url, tmp_path, api=SMALL)) as gateway:
        yield gateway


def places(body: dict[str, Any]) -> set[str]:
    return {error["place"] for error in body["errors"]}


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({}, "body.task"),
        ({"task": ""}, "body.task"),
        ({"task": " \n\t"}, "body.task"),
        ({"task": None}, "body.task"),
        ({"task": 5}, "body.task"),
        ({"task": "x" * 101}, "body.task"),
        ({"task": "x", "tusk": 1}, "body.tusk"),
        ({"task": "x", "user_uuid": ""}, "body.user_uuid"),
        ({"task": "x", "on_busy": "perhaps"}, "body.on_busy"),
        ({"task": "x", "context_data": {}}, "body.context_data"),
        ({"task": "x", "context_data": [{"type": "text"}]}, "body.context_data.0.content"),
        ({"task": "x", "context_data": [{"content": "c"}]}, "body.context_data.0.type"),
        ({"task": "x", "parameters": []}, "body.parameters"),
        ({"task": "x", "parameters": {"maxturns": 1}}, "body.parameters.maxturns"),
        ({"task": "x", "parameters": {"max_turns": "5"}}, "body.parameters.max_turns"),
        ({"task": "x", "parameters": {"max_turns": 0}}, "body.parameters.max_turns"),
        ({"task": "x", "parameters": {"allowed_hosts": ["http://a.test"]}}, "body.parameters.allowed_hosts.0"),
        ({"task": "x", "parameters": {"allowed_hosts": ["a.test"]}}, "body.parameters.allowed_hosts"),
        ({"task": "x", "parameters": {"max_turns": 1.5}}, "body.parameters.max_turns"),
        ({"task": "x", "parameters": {"max_cost": 0}}, "body.parameters.max_cost"),
        ({"task": "x", "parameters": {"max_seconds": -1}}, "body.parameters.max_seconds"),
        ({"task": "x", "parameters": {"temperature": 3}}, "body.parameters.temperature"),
        ({"task": "x", "parameters": {"model": ""}}, "body.parameters.model"),
        ({"task": "x", "parameters": {"tools": ["bash", "telnet"]}}, "body.parameters.tools"),
        ({"task": "x", "parameters": {"priority": "urgent"}}, "body.parameters.priority"),
        ([], "body"),
        ("text", "body"),
        (None, "body"),
    ],
)
async def test_a_wrong_task_is_refused_with_the_place_of_the_fault(gateway: Gateway, body: Any, place: str) -> None:
    thread_id = await gateway.thread()
    answer = await gateway.client.post(f"/api/agent/{thread_id}/execute", json=body)
    assert answer.status_code == 400
    assert answer.json()["code"] == "invalid_request"
    assert answer.json()["detail"]
    assert places(answer.json()) == {place}
    assert await gateway.store.run_ids(thread_id) == []


async def test_a_whole_number_may_be_written_with_a_point(gateway: Gateway) -> None:
    path = f"/api/agent/{await gateway.thread()}/execute"
    taken = await gateway.client.post(path, json={"task": "x", "parameters": {"max_turns": 5.0}})
    assert taken.status_code == 200
    run = await gateway.store.run(taken.json()["run_id"])
    assert run is not None
    assert (run.parameters["max_turns"], type(run.parameters["max_turns"])) == (5, int)


async def test_every_fault_is_named_at_once(gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    body = {"task": " ", "tusk": 1, "parameters": {"max_turns": 0}}
    answer = await gateway.client.post(f"/api/agent/{thread_id}/execute", json=body)
    assert places(answer.json()) == {"body.task", "body.tusk", "body.parameters.max_turns"}


@pytest.mark.parametrize(
    "body",
    [
        b"{not json",
        b"",
        b'{"task": "x"',
        b'{"task": "x"} trailing',
        b'{"task": NaN}',
        b'{"task": "\\ud800"}',
        b'{"task": "\xff"}',
        b"[" * 1900,
    ],
)
async def test_what_is_not_json_is_refused(gateway: Gateway, body: bytes) -> None:
    thread_id = await gateway.thread()
    headers = {"Content-Type": "application/json"}
    answer = await gateway.client.post(f"/api/agent/{thread_id}/execute", content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert places(answer.json()) == {"body"}


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "", "multipart/form-data"])
async def test_json_must_be_declared_as_such(gateway: Gateway, content_type: str) -> None:
    """A page of another origin can send the others without asking."""
    thread_id = await gateway.thread()
    answer = await gateway.client.post(
        f"/api/agent/{thread_id}/execute", content=b'{"task": "x"}', headers={"Content-Type": content_type}
    )
    assert answer.status_code == 400


async def test_what_is_nested_too_deeply_to_be_stored_is_refused(gateway: Gateway) -> None:
    nested = json.loads("[" * 400 + "]" * 400)
    thread_id = await gateway.thread()
    context = await gateway.client.post("/api/agent/initiate", json={"context": {"a": nested}})
    item = {"type": "text", "content": nested}
    data = await gateway.client.post(f"/api/agent/{thread_id}/execute", json={"task": "x", "context_data": [item]})
    assert (context.status_code, data.status_code) == (400, 400)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"metadata": []}, "invalid_request"),
        ({"context": "x"}, "invalid_request"),
        ({"thread_id": "x"}, "invalid_request"),
        ({"flowUuid": "f"}, "invalid_request"),
    ],
)
async def test_a_thread_is_not_opened_with_what_would_be_ignored(gateway: Gateway, body: Any, code: str) -> None:
    answer = await gateway.client.post("/api/agent/initiate", json=body)
    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert (await gateway.client.get("/api/agent")).json()["items"] == []


NOBODYS = "01m7zn6bwrwzcjr98w908vengt"
"""A thread's id, written out: the tests have the same names wherever they run."""
STRANGE_IDS = [
    "nope",
    "0" * 26,
    "%00",
    "..%2f..",
    "é",
    "x" * 2000,
    "a b",
    "{x}",
    NOBODYS,
    NOBODYS + ".",
]


@pytest.mark.parametrize("thread_id", STRANGE_IDS)
async def test_an_unknown_thread_is_not_found_whatever_its_name(gateway: Gateway, thread_id: str) -> None:
    for path in ("", "/messages", "/runs", "/stream"):
        answer = await gateway.client.get(f"/api/agent/{thread_id}{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    answer = await gateway.client.post(f"/api/agent/{thread_id}/execute", json={"task": "x"})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("run_id", [*STRANGE_IDS, f"{NOBODYS}.01m7zn6bwrq5epa", "a.b"])
async def test_an_unknown_run_is_not_found_whatever_its_name(gateway: Gateway, run_id: str) -> None:
    for path in ("", "/events", "/steps"):
        answer = await gateway.client.get(f"/api/runs/{run_id}{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    thread_id = await gateway.thread()
    for answer in (
        await gateway.client.post(f"/api/runs/{run_id}/cancel"),
        await gateway.client.get(f"/api/runs/{run_id}/events", headers={"Accept": "text/event-stream"}),
        await gateway.client.get(f"/api/agent/{thread_id}/stream?run_id={run_id}"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("last_id", ["abc", "1", "-1", "1-", "1-1-1", "1-x", " 1-1", "1" * 30 + "-0", "$", "٣-٣"])
async def test_a_last_id_that_is_none_is_refused(gateway: Gateway, last_id: str) -> None:
    thread_id = await gateway.thread()
    run_id = await gateway.execute(thread_id)
    for path in (f"/api/agent/{thread_id}/stream", f"/api/runs/{run_id}/events"):
        answer = await gateway.client.get(path, params={"last_id": last_id})
        assert answer.status_code == 400
        assert places(answer.json()) == {"last_id"}
    headers = [(b"Last-Event-ID", last_id.strip().encode() + b"x")]
    assert (await gateway.client.get(f"/api/agent/{thread_id}/stream", headers=headers)).status_code == 400


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "limit=x", "cursor=x", "cursor=-1", "cursor=" + "9" * 99])
async def test_a_page_that_is_none_is_refused(gateway: Gateway, query: str) -> None:
    thread_id = await gateway.thread()
    run_id = await gateway.execute(thread_id)
    for path in (f"agent/{thread_id}/messages", f"agent/{thread_id}/runs", f"runs/{run_id}/steps", "agent"):
        answer = await gateway.client.get(f"/api/{path}?{query}")
        assert answer.status_code == 400, path
        assert places(answer.json()) == {f"query.{query.partition('=')[0]}"}


async def test_a_body_that_is_too_large_is_refused_unread(gateway: Gateway) -> None:
    answer = await gateway.client.post("/api/agent/initiate", json={"metadata": {"a": "x" * 2000}})
    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")


async def test_a_body_of_unknown_length_is_read_only_up_to_the_limit(gateway: Gateway) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b'{"metadata": {"a": "'
        for _ in range(100):
            yield b"x" * 100
        yield b'"}}'

    answer = await gateway.client.post(
        "/api/agent/initiate", content=parts(), headers={"Content-Type": "application/json"}
    )
    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")


async def test_unknown_paths_and_methods_are_problems_too(gateway: Gateway) -> None:
    nothing = await gateway.client.get("/api/nothing")
    assert (nothing.status_code, nothing.json()["code"]) == (404, "not_found")
    method = await gateway.client.put("/api/agent/initiate")
    assert (method.status_code, method.json()["code"]) == (405, "method_not_allowed")
    assert method.headers["allow"] == "POST"
    for answer in (nothing, method):
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == answer.status_code


@pytest.mark.parametrize("path", ["/api/agent", "/api/agent/", "/api/v1/agent", "/api/v1/agent/", "/health/", "/docs/"])
async def test_versions_and_trailing_slashes_make_no_difference(gateway: Gateway, path: str) -> None:
    assert (await gateway.client.get(path)).status_code == 200


async def test_a_crash_is_answered_with_an_id_of_the_log_and_nothing_else(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    thread_id = await gateway.thread()
    await gateway.redis.hset(f"thread:{{{thread_id}}}:metadata", "created_at", "secret-nonsense")
    answer = await gateway.client.get(f"/api/agent/{thread_id}", headers={"Origin": "https://console.example"})
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "secret-nonsense" not in answer.text
    request_id = answer.json()["request_id"]
    assert answer.headers["x-request-id"] == request_id
    assert answer.headers["access-control-allow-origin"] == "https://console.example"
    [record] = [record for record in caplog.records if request_id in record.getMessage() and record.exc_info]
    assert "secret-nonsense" in str(record.exc_info[1])  # type: ignore[index]


async def test_each_answer_names_its_request_and_keeps_a_given_name(gateway: Gateway) -> None:
    first, second = [(await gateway.client.get("/health/live")).headers["x-request-id"] for _ in range(2)]
    assert first != second
    for given, kept in (("my-request-0001", True), ("x", False), ("a b c d e f g h", False), ("y" * 65, False)):
        answer = await gateway.client.get("/health/live", headers={"X-Request-Id": given})
        assert (answer.headers["x-request-id"] == given) is kept


async def test_answers_carry_security_headers(gateway: Gateway) -> None:
    for path in ("/", "/api/agent", "/api/nothing", "/docs"):
        headers = (await gateway.client.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "default-src 'none'" in headers["content-security-policy"]


async def test_the_access_log_has_a_line_for_each_request_without_its_query(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trunkline.gateway.access")
    await gateway.client.get("/api/agent?limit=3&ticket=secret")
    await gateway.client.get("/api/a%0Ab")
    lines = [record.getMessage() for record in caplog.records if record.name == "trunkline.gateway.access"]
    assert [line.rsplit(" ", 2)[0] for line in lines] == ["GET /api/agent 200", "GET /api/a%0Ab 404"]
    assert not any("secret" in line for line in lines)


async def test_a_client_that_went_away_is_logged_as_499(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trunkline.gateway.access")
    thread_id = await gateway.thread()
    async with gateway.stream(f"/api/agent/{thread_id}/stream") as stream:
        await stream.frames(1)
    await until(lambda: f"GET /api/agent/{thread_id}/stream 499" in caplog.text)


async def test_only_configured_origins_may_call_from_a_browser(gateway: Gateway) -> None:
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    for origin, allowed in (("https://console.example", True), ("https://evil.example", False)):
        preflight = await gateway.client.options("/api/agent/initiate", headers={"Origin": origin, **ask})
        assert (preflight.headers.get("access-control-allow-origin") == origin) is allowed
        answer = await gateway.client.get("/api/agent", headers={"Origin": origin})
        assert (answer.headers.get("access-control-allow-origin") == origin) is allowed


async def test_a_stream_is_open_to_configured_origins(gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    headers = {"Origin": "https://console.example"}
    async with gateway.stream(f"/api/agent/{thread_id}/stream", headers) as stream:
        assert stream.headers["access-control-allow-origin"] == "https://console.example"


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/api/agent/x", "DELETE, GET, PATCH"),
        ("/api/v1/agent", "GET"),
        ("/api/agent/initiate", "POST"),
        ("/api/v1/runs", "GET, POST"),
    ],
)
async def test_a_method_that_is_not_there_is_told_all_that_are(gateway: Gateway, path: str, allowed: str) -> None:
    answer = await gateway.client.options(path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    assert answer.json()["detail"].endswith(f"only {allowed}.")


async def test_what_the_configuration_forbids_is_refused_wherever_a_run_is_asked_for(gateway: Gateway) -> None:
    await tell(gateway)
    run_id = await gateway.execute(await gateway.thread())
    await gateway.client.post(f"/api/runs/{run_id}/cancel")
    task = (await gateway.client.post("/api/tasks", json={"name": "t"})).json()["id"]
    far, long = {"parameters": {"allowed_hosts": ["a.test"]}}, "x" * 101
    for path, body, place in (
        ("/api/runs", {"input": {"task": long}}, "body.input.task"),
        ("/api/runs", {"input": {"task": "x"}, **far}, "body.parameters.allowed_hosts"),
        (f"/api/tasks/{task}/runs", {"input": {"task": long}}, "body.input.task"),
        (f"/api/tasks/{task}/runs", far, "body.parameters.allowed_hosts"),
        (f"/api/runs/{run_id}/retry", far, "body.parameters.allowed_hosts"),
        ("/api/chat/stream", {"agent": "chat", "input": long}, "body.input"),
    ):
        answer = await gateway.client.post(path, json=body)
        assert answer.status_code == 400, path
        assert places(answer.json()) == {place}


@pytest.mark.parametrize(
    ("asked", "place"),
    [
        (5, "body.input"),
        ("Go on.", "body.input"),
        ({}, "body.input.task"),
        ({"task": " "}, "body.input.task"),
        ({"task": "x" * 101}, "body.input.task"),
        ({"task": "x", "tusk": 1}, "body.input.tusk"),
        ({"task": "x", "context_data": [{"type": "t", "content": json.loads("[" * 300 + "]" * 300)}]}, None),
    ],
)
async def test_another_input_of_a_forked_agent_is_judged_as_the_first_was(
    gateway: Gateway, asked: Any, place: str | None
) -> None:
    run_id = await gateway.execute(await gateway.thread())
    answer = await gateway.client.post(f"/api/runs/{run_id}/fork", json={"step_id": f"{run_id}.1", "input": asked})
    assert answer.status_code == 400, answer.text
    assert place is None or places(answer.json()) == {place}
