"""The client against a server that misbehaves; against a real one, see tests/scripts."""

import itertools
from pathlib import Path

import pytest

from tests.trunkline.server import Answer, as_json, event, kinds, serving, stream
from trunkline import (
    APIError,
    Conflict,
    ConnectionLost,
    IdempotencyConflict,
    InvalidRequest,
    NotFound,
    RateLimited,
    Retry,
    RunFailed,
    Trunkline,
    Unavailable,
)

THREAD = {"thread_id": "t", "status": "active", "created_at": "2026-11-21T05:00:00Z"}
RUN = {"run_id": "t.r", "thread_id": "t", "status": "pending", "created_at": "2026-11-21T05:00:00Z"}
ONCE, QUICK = Retry(tries=1), Retry(first_pause_seconds=0.01)
NOT_THERE = {"title": "Not found", "status": 404, "detail": "There is no run x.", "code": "not_found"}


def test_a_run_is_started_with_the_key_and_an_idempotency_key() -> None:
    with serving(as_json(THREAD), as_json(RUN)) as (url, asked), Trunkline(url, "secret") as client:
        thread = client.threads.initiate(metadata={"customer": "c-1"})
        run = client.threads.execute(thread.id, "Sing", parameters={"max_turns": 3})
    assert (thread.id, run.id, run.status) == ("t", "t.r", "pending")
    assert [request.path for request in asked] == ["/api/agent/initiate", "/api/agent/t/execute"]
    assert asked[0].body == {"metadata": {"customer": "c-1"}}
    assert asked[1].body == {"task": "Sing", "parameters": {"max_turns": 3}}
    assert {request.headers["authorization"] for request in asked} == {"Bearer secret"}
    assert len({request.headers["idempotency-key"] for request in asked}) == 2


def test_a_request_is_repeated_with_the_same_idempotency_key_where_the_server_asks_for_it() -> None:
    away = as_json({"detail": "Redis is away.", "code": "unavailable"}, 503, **{"retry-after": "0"})
    with serving(away, Answer(cut=True), as_json(RUN)) as (url, asked), Trunkline(url, retry=QUICK) as client:
        assert client.threads.execute("t", "Sing").id == "t.r"
    assert len(asked) == 3
    assert len({request.headers["idempotency-key"] for request in asked}) == 1


def test_a_refusal_says_what_is_wrong_and_where() -> None:
    errors = [{"place": "body.task", "detail": "should not be blank"}, {"place": "body.x", "detail": "no such field"}]
    problem = {"detail": "body.task: should not be blank", "code": "invalid_request", "errors": errors}
    with serving(as_json(problem, 400)) as (url, _), Trunkline(url) as client, pytest.raises(APIError) as caught:
        client.threads.execute("t", " ")
    assert (caught.value.status, caught.value.code) == (400, "invalid_request")
    assert str(caught.value) == "body.task: should not be blank\n  body.x: no such field", "each once"


def test_an_answer_that_is_not_trunklines_is_told_as_such() -> None:
    page = Answer(404, b"<html>nginx</html>", {"content-type": "text/html"})
    with serving(page) as (url, _), Trunkline(url) as client, pytest.raises(APIError, match="Is the URL right"):
        client.runs.get("t.r")


def test_a_server_that_is_not_there_is_an_error_with_its_address() -> None:
    with serving() as (url, _):
        pass
    with Trunkline(url, retry=ONCE) as client, pytest.raises(ConnectionLost, match=url):
        client.runs.get("t.r")


def test_an_error_names_the_address_without_what_stands_before_its_host() -> None:
    page = Answer(404, b"<html>nginx</html>", {"content-type": "text/html"})
    with serving(page) as (url, _):
        secret = url.replace("//", "//user:pass@")
        with Trunkline(secret) as client, pytest.raises(APIError, match=f"^{url}/api/runs/t.r answered 404"):
            client.runs.get("t.r")
    with (
        Trunkline(secret, retry=ONCE) as client,
        pytest.raises(ConnectionLost, match=f"^{url} cannot be reached"),
    ):
        client.runs.get("t.r")


def test_a_list_is_fetched_page_by_page() -> None:
    pages = [{"items": [THREAD, THREAD], "next_cursor": "c"}, {"items": [THREAD], "next_cursor": None}]
    with serving(*(as_json(page) for page in pages)) as (url, asked), Trunkline(url) as client:
        assert len(list(client.threads.list())) == 3
    assert "cursor=c" in asked[1].path


def test_a_stream_goes_on_after_its_last_event_however_its_connection_ended() -> None:
    first = stream(event("1-0", "run.started"), event("2-0", "agent.delta", text="a"), cut=True)
    ended_early = stream(event("3-0", "agent.delta", text="b"))
    last = stream(event("4-0", "run.completed"), event("5-0", "never read"))
    drops: list[str] = []
    away = as_json({"detail": "Redis is away.", "code": "unavailable"}, 503)
    with serving(first, away, ended_early, last) as (url, asked), Trunkline(url) as client:
        events = list(client.runs.follow("t.r", on_drop=drops.append))
    assert kinds(events) == ["run.started", "agent.delta", "agent.delta", "run.completed"]
    assert [request.headers.get("last-event-id") for request in asked] == [None, "2-0", "2-0", "3-0"]
    assert len(drops) == 3
    assert "Redis is away." in drops[1]


def test_a_stream_begins_after_the_event_that_the_caller_names() -> None:
    with serving(stream(event("9-0", "run.completed"))) as (url, asked), Trunkline(url) as client:
        events = client.runs.follow("t.r", last_id="8-0")
        assert kinds(list(events)) == ["run.completed"]
        assert events.last_id == "9-0"
    assert asked[0].headers["last-event-id"] == "8-0"


def test_nothing_more_to_come_ends_a_stream() -> None:
    with serving(Answer(204)) as (url, _), Trunkline(url) as client:
        assert list(client.runs.follow("t.r", last_id="9-0")) == []


def test_a_stream_that_is_refused_is_an_error_at_once() -> None:
    with serving(as_json(NOT_THERE, 404)) as (url, asked), Trunkline(url) as client, pytest.raises(NotFound):
        list(client.runs.follow("x"))
    assert len(asked) == 1


def test_a_stream_gives_up_when_nothing_was_heard_for_as_long_as_its_reader_is_patient() -> None:
    with serving(stream(event("1-0", "run.started"))) as (url, _), Trunkline(url) as client:
        events = client.runs.follow("t.r", patience_seconds=0.1)
        assert next(events).type == "run.started"
        with pytest.raises(ConnectionLost) as caught:
            list(events)
    assert caught.value.last_id == "1-0"


def test_a_refusal_is_the_exception_of_its_code() -> None:
    codes = {"not_found": NotFound, "conflict": Conflict, "idempotency_conflict": IdempotencyConflict, "new": APIError}
    for code, kind in codes.items():
        with serving(as_json({"detail": "No.", "code": code}, 409)) as (url, _), Trunkline(url) as client:
            with pytest.raises(APIError) as caught:
                client.runs.get("t.r")
            assert type(caught.value) is kind
            assert caught.value.problem == {"detail": "No.", "code": code, "status": 409}


def test_a_limit_is_waited_out_where_it_ends_soon_and_told_where_it_does_not() -> None:
    def limited(seconds: str) -> Answer:
        return as_json({"detail": "Too often.", "code": "rate_limited"}, 429, **{"retry-after": seconds})

    with serving(limited("0"), as_json(RUN), limited("3600")) as (url, asked), Trunkline(url, retry=QUICK) as client:
        assert client.runs.get("t.r").id == "t.r"
        with pytest.raises(RateLimited) as caught:
            client.runs.get("t.r")
    assert caught.value.retry_after == 3600
    assert len(asked) == 3


def test_a_request_is_given_up_after_so_many_tries() -> None:
    away = as_json({"detail": "Redis is away.", "code": "unavailable"}, 503)
    retry = Retry(tries=3, first_pause_seconds=0.01)
    with serving(away, away, away) as (url, asked), Trunkline(url, retry=retry) as client, pytest.raises(Unavailable):
        client.runs.get("t.r")
    assert len(asked) == 3


def test_a_change_whose_answer_was_lost_is_not_sent_again() -> None:
    with (
        serving(Answer(cut=True)) as (url, asked),
        Trunkline(url, retry=QUICK) as client,
        pytest.raises(ConnectionLost),
    ):
        client.threads.update("t", name="new")
    assert len(asked) == 1


def test_a_deletion_whose_answer_was_lost_counts_as_done_when_it_is() -> None:
    gone = as_json(NOT_THERE, 404)
    with serving(Answer(cut=True), gone, gone) as (url, asked), Trunkline(url, retry=QUICK) as client:
        client.runs.delete("t.r")
        with pytest.raises(NotFound):
            client.runs.delete("t.r")
    assert len(asked) == 3


def test_a_row_is_changed_only_in_the_version_that_was_read() -> None:
    row = {"id": "a", "version": 4, "name": "new", "status": "active", "temperature": 0.2}
    with serving(as_json(row)) as (url, asked), Trunkline(url, workspace="w-1") as client:
        agent = client.agents.update("a", version=3, name="new")
    assert (agent.name, agent.version, agent.to_json()) == ("new", 4, row)
    assert (asked[0].method, asked[0].path, asked[0].headers["if-match"]) == ("PATCH", "/api/agents/a", '"3"')
    assert asked[0].headers["x-workspace-id"] == "w-1"


def test_a_context_is_written_over_the_version_that_was_read() -> None:
    written = {"agent_id": "a", "context_name": "plan", "version": 3, "data": {"goal": "ship"}, "note": "why"}
    with serving(as_json(written, 201)) as (url, asked), Trunkline(url) as client:
        context = client.agents.contexts.write("a", {"goal": "ship"}, "plan", note="why", expected_version=2)
    assert context.to_json() == written
    assert asked[0].path == "/api/agents/a/context?context_name=plan"
    assert asked[0].body == {"data": {"goal": "ship"}, "note": "why", "expected_version": 2}


def test_a_key_is_shown_where_it_was_made() -> None:
    made = {"id": "k", "name": "ci", "prefix": "tl_06", "scopes": ["run"], "key": "tl_06secret"}
    with serving(as_json(made, 201)) as (url, asked), Trunkline(url) as client:
        assert client.keys.create("ci", scopes=["run"]).key == "tl_06secret"
    assert asked[0].body == {"name": "ci", "scopes": ["run"]}


@pytest.mark.parametrize("thread_id", ["", ".", ".."])
def test_what_cannot_be_an_id_is_not_sent(thread_id: str) -> None:
    with serving() as (url, asked), Trunkline(url) as client, pytest.raises(InvalidRequest):
        client.threads.get(thread_id)
    assert asked == []


def test_an_id_stays_one_part_of_the_path() -> None:
    with serving(as_json(THREAD)) as (url, asked), Trunkline(url) as client:
        client.threads.get("../runs?x=1")
    assert asked[0].path == "/api/agent/..%2Fruns%3Fx%3D1"


def test_a_file_that_breaks_off_leaves_nothing_behind(tmp_path: Path) -> None:
    half = Answer(body=b"half", cut=True)
    with serving(half) as (url, _), Trunkline(url, retry=QUICK) as client, pytest.raises(ConnectionLost):
        client.threads.files.download("t", "data.bin", tmp_path / "data.bin")
    assert list(tmp_path.iterdir()) == []


def test_what_the_agent_says_is_given_piece_by_piece_and_a_failure_raised() -> None:
    told = [
        event("1-0", "agent.request", step=1),
        event("2-0", "agent.delta", step=1, text="Hel"),
        event("3-0", "run.resumed", attempt=2),
        event("4-0", "agent.request", step=1, attempt=2),
        event("5-0", "agent.delta", step=1, attempt=2, text="Hello"),
        event("6-0", "agent.response", step=1, content="Hello"),
        event("7-0", "agent.delta", step=2, text=" you"),
        event("8-0", "run.failed", error={"code": "model_error"}),
    ]
    failed = {**RUN, "status": "failed", "error": {"code": "model_error", "detail": "The model is gone."}}
    with serving(stream(*told), as_json(failed)) as (url, _), Trunkline(url) as client:
        said = client.runs.deltas("t.r")
        pieces = [(delta.text, delta.restarts) for delta in itertools.islice(said, 3)]
        with pytest.raises(RunFailed, match="The model is gone") as caught:
            next(said)
    assert pieces == [("Hel", False), ("Hello", True), (" you", False)]
    assert caught.value.code == "model_error"
