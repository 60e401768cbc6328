"""The client against a server that misbehaves; against a real one, see tests/scripts."""

import pytest

from tests.trunkline.server import Answer, as_json, event, kinds, serving, stream
from trunkline import APIError, Client, ConnectionLostError

THREAD = {"thread_id": "t", "status": "active", "created_at": "2026-11-21T05:00:00Z"}
RUN = {"run_id": "t.r", "thread_id": "t", "status": "pending", "created_at": "2026-11-21T05:00:00Z"}
NOT_THERE = {"title": "Not found", "status": 404, "detail": "There is no run x.", "code": "not_found"}


def test_a_run_is_started_with_the_key_and_an_idempotency_key() -> None:
    with serving(as_json(THREAD), as_json(RUN)) as (url, asked), Client(url, "secret") as client:
        thread = client.threads.create(metadata={"customer": "c-1"})
        run = client.threads.execute(thread.id, "Sing", parameters={"max_turns": 3})
    assert (thread.id, run.id, run.status) == ("t", "t.r", "pending")
    assert [request.path for request in asked] == ["/api/agent/initiate", "/api/agent/t/execute"]
    assert asked[0].body == {"metadata": {"customer": "c-1"}}
    assert asked[1].body == {"task": "Sing", "parameters": {"max_turns": 3}}
    assert {request.headers["authorization"] for request in asked} == {"Bearer secret"}
    assert len({request.headers["idempotency-key"] for request in asked}) == 2


def test_a_request_is_repeated_with_the_same_idempotency_key_where_the_server_asks_for_it() -> None:
    away = as_json({"detail": "Redis is away.", "code": "unavailable"}, 503, **{"retry-after": "0"})
    with serving(away, Answer(cut=True), as_json(RUN)) as (url, asked), Client(url) as client:
        assert client.threads.execute("t", "Sing").id == "t.r"
    assert len(asked) == 3
    assert len({request.headers["idempotency-key"] for request in asked}) == 1


def test_a_refusal_says_what_is_wrong_and_where() -> None:
    errors = [{"place": "body.task", "detail": "should not be blank"}, {"place": "body.x", "detail": "no such field"}]
    problem = {"detail": "body.task: should not be blank", "code": "invalid_request", "errors": errors}
    with serving(as_json(problem, 400)) as (url, _), Client(url) as client, pytest.raises(APIError) as caught:
        client.threads.execute("t", " ")
    assert (caught.value.status, caught.value.code) == (400, "invalid_request")
    assert str(caught.value) == "body.task: should not be blank\n  body.x: no such field", "each once"


def test_an_answer_that_is_not_trunklines_is_told_as_such() -> None:
    page = Answer(404, b"<html>nginx</html>", {"content-type": "text/html"})
    with serving(page) as (url, _), Client(url) as client, pytest.raises(APIError, match="Is the URL right"):
        client.runs.get("t.r")


def test_a_server_that_is_not_there_is_an_error_with_its_address() -> None:
    with serving() as (url, _):
        pass
    with Client(url, tries=1) as client, pytest.raises(ConnectionLostError, match=url):
        client.runs.get("t.r")


def test_an_error_names_the_address_without_what_stands_before_its_host() -> None:
    page = Answer(404, b"<html>nginx</html>", {"content-type": "text/html"})
    with serving(page) as (url, _):
        secret = url.replace("//", "//user:pass@")
        with Client(secret) as client, pytest.raises(APIError, match=f"^{url}/api/runs/t.r answered 404"):
            client.runs.get("t.r")
    with Client(secret, tries=1) as client, pytest.raises(ConnectionLostError, match=f"^{url} cannot be reached"):
        client.runs.get("t.r")


def test_a_list_is_fetched_page_by_page() -> None:
    pages = [{"items": [THREAD, THREAD], "next_cursor": "c"}, {"items": [THREAD], "next_cursor": None}]
    with serving(*(as_json(page) for page in pages)) as (url, asked), Client(url) as client:
        assert len(list(client.threads.list())) == 3
    assert "cursor=c" in asked[1].path


def test_a_stream_goes_on_after_its_last_event_however_its_connection_ended() -> None:
    first = stream(event("1-0", "run.started"), event("2-0", "agent.delta", text="a"), cut=True)
    ended_early = stream(event("3-0", "agent.delta", text="b"))
    last = stream(event("4-0", "run.completed"), event("5-0", "never read"))
    drops: list[str] = []
    away = as_json({"detail": "Redis is away.", "code": "unavailable"}, 503)
    with serving(first, away, ended_early, last) as (url, asked), Client(url) as client:
        events = list(client.runs.events("t.r", on_drop=drops.append))
    assert kinds(events) == ["run.started", "agent.delta", "agent.delta", "run.completed"]
    assert [request.headers.get("last-event-id") for request in asked] == [None, "2-0", "2-0", "3-0"]
    assert len(drops) == 3
    assert "Redis is away." in drops[1]


def test_a_stream_begins_after_the_event_that_the_caller_names() -> None:
    with serving(stream(event("9-0", "run.completed"))) as (url, asked), Client(url) as client:
        events = client.runs.events("t.r", last_id="8-0")
        assert kinds(list(events)) == ["run.completed"]
        assert events.last_id == "9-0"
    assert asked[0].headers["last-event-id"] == "8-0"


def test_nothing_more_to_come_ends_a_stream() -> None:
    with serving(Answer(204)) as (url, _), Client(url) as client:
        assert list(client.runs.events("t.r", last_id="9-0")) == []


def test_a_stream_that_is_refused_is_an_error_at_once() -> None:
    with serving(as_json(NOT_THERE, 404)) as (url, asked), Client(url) as client, pytest.raises(APIError):
        list(client.runs.events("x"))
    assert len(asked) == 1


def test_a_stream_gives_up_when_nothing_was_heard_for_as_long_as_its_reader_is_patient() -> None:
    with serving(stream(event("1-0", "run.started"))) as (url, _), Client(url) as client:
        events = client.runs.events("t.r", patience_seconds=0.1)
        assert next(events).type == "run.started"
        with pytest.raises(ConnectionLostError) as caught:
            list(events)
    assert caught.value.last_id == "1-0"
