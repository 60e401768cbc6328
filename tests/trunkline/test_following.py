"""The state of a stream, whatever happens to its connections."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.errors import ConnectionLost, NotFound, UnexpectedAnswer
from trunkline.following import Following
from trunkline.models import Event

RUN = "t.r"
NOTICES = ["retry: 1000\n\n", ":\n", "event: keep_alive\ndata: {}\n\n", "event: waiting\ndata: {}\n\n"]
TIMED_OUT = {"status": 408, "code": "stream_timeout", "detail": "idle"}
REFUSALS = [408, 429, 500, 502, 503, 504]


def frame(event: str, body: object, stream_id: str | None = None) -> str:
    place = f"id: {stream_id}\n" if stream_id else ""
    return f"{place}event: {event}\ndata: {json.dumps(body)}\n\n"


def answer(status: int, *, kind: str = "text/event-stream", headers: dict[str, str] | None = None) -> httpx.Response:
    request = httpx.Request("GET", "http://server/api/runs/t.r/events")
    return httpx.Response(status, headers={"content-type": kind, **(headers or {})}, request=request)


@dataclass
class Server:
    """Exact, as the real one: after an id it sends what follows, all of it; with what it says in between."""

    count: int
    notices: list[int] = field(default_factory=list)

    def body(self, last_id: str | None) -> bytes:
        after = int(last_id.partition("-")[0]) if last_id else 0
        text = ""
        for number in range(after + 1, self.count + 1):
            text += NOTICES[self.notices[number % len(self.notices)]] if self.notices else ""
            kind = "run.completed" if number == self.count else "agent.delta"
            text += frame(kind, {"type": kind, "run_id": RUN, "data": {"n": number, "é": "\u2028"}}, f"{number}-0")
        return text.encode()


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def following(*, last_id: str | None = None, patience: float | None = None, clock: Clock | None = None) -> Following:
    return Following(
        run_id=RUN, last_id=last_id, patience_seconds=patience, on_drop=lambda _: None, clock=clock or Clock()
    )


def connection(state: Following, body: bytes, sizes: list[int]) -> Iterator[Event]:
    """One connection that brings `body` in pieces."""
    assert state.answered(answer(200))
    place = 0
    for size in [*sizes, len(body)]:
        yield from state.take(body[place : place + size])
        place += size
        if state.has_ended():
            return


def drop_for_ever(state: Following, clock: Clock, between: bytes = b"") -> None:
    for _ in range(100):
        clock.now += state.dropped("cut")
        assert list(connection(state, between, [])) == []


cuts = st.lists(
    st.one_of(st.integers(0, 2000), st.sampled_from(REFUSALS).map(lambda status: -status), st.just(-1)), max_size=12
)


@given(
    count=st.integers(1, 12),
    notices=st.lists(st.integers(0, len(NOTICES) - 1), max_size=5),
    cuts=cuts,
    sizes=st.lists(st.integers(1, 200), max_size=20),
)
def test_whatever_is_cut_wherever_nothing_is_lost_and_nothing_doubled(
    count: int, notices: list[int], cuts: list[int], sizes: list[int]
) -> None:
    """A cut is a byte's place in a body, a refusal's status (negative), or a stream that timed out (-1)."""
    server, state = Server(count, notices), following()
    got: list[Event] = []
    for cut in cuts:
        if state.has_ended():
            break
        body = server.body(state.headers().get("last-event-id"))
        if cut < -1:
            assert not state.answered(answer(-cut, kind="application/problem+json"))
        else:
            seen = body[:cut] if cut >= 0 else frame("error", TIMED_OUT).encode()
            got += connection(state, seen, sizes)
        if not state.has_ended():
            assert 0 <= state.dropped() <= 10
    if not state.has_ended():
        got += connection(state, server.body(state.headers().get("last-event-id")), sizes)
    assert [event.data["n"] for event in got] == list(range(1, count + 1))
    assert state.has_ended()
    assert state.last_id == f"{count}-0"


def test_a_stream_that_stays_cut_raises_when_patience_ends_and_says_where_to_resume() -> None:
    clock = Clock()
    state = following(patience=30, clock=clock)
    assert [event.id for event in connection(state, Server(3).body(None)[:150], [])] == ["1-0"]
    clock.now = 10_000  # the reader was slow: no reason to give up
    with pytest.raises(ConnectionLost) as caught:
        drop_for_ever(state, clock)
    assert 10_015 < clock.now <= 10_030
    assert caught.value.last_id == "1-0"


def test_a_server_that_only_greets_and_hangs_up_is_given_up() -> None:
    clock = Clock()
    state = following(patience=30, clock=clock)
    with pytest.raises(ConnectionLost):
        drop_for_ever(state, clock, between=(NOTICES[0] + NOTICES[3]).encode())


def test_no_more_content_is_an_end_only_for_who_said_where_they_are() -> None:
    state = following(last_id="9-0")
    assert not state.answered(answer(204))
    assert state.has_ended()
    with pytest.raises(UnexpectedAnswer):
        following().answered(answer(204))
    state = following()
    assert len(list(connection(state, Server(3).body(None)[:150], []))) == 1
    with pytest.raises(UnexpectedAnswer):
        state.answered(answer(204))


def test_a_gap_is_told_once_and_does_not_move_the_place() -> None:
    state = following()
    body = frame("gap", {"type": "gap", "after": "1-0", "until": "5-0"}).encode()
    [gap] = connection(state, body, [])
    assert (gap.type, gap.data, state.last_id) == ("gap", {"after": "1-0", "until": "5-0"}, None)
    state.dropped()
    assert list(connection(state, body, [])) == []


def test_an_error_in_the_stream_is_raised_where_it_is_final_and_waited_out_where_it_is_not() -> None:
    state = following()
    away = frame("error", {"status": 503, "code": "unavailable", "detail": "Redis does not answer."}).encode()
    assert [event.id for event in connection(state, away + Server(1).body(None), [])] == ["1-0"]
    gone = frame("error", {"status": 404, "code": "not_found", "detail": "There is no run t.r."}).encode()
    with pytest.raises(NotFound, match=r"no run t\.r"):
        list(connection(following(), gone, []))


def test_what_is_no_event_stream_is_no_stream() -> None:
    with pytest.raises(UnexpectedAnswer, match="Is the URL right"):
        following().answered(answer(200, kind="text/html"))
    with pytest.raises(UnexpectedAnswer):
        list(connection(following(), b"id: 1-0\ndata: nonsense\n\n", []))


def test_a_pause_is_as_long_as_the_server_asks() -> None:
    state = following()
    assert not state.answered(answer(503, headers={"retry-after": "42"}))
    assert state.dropped() == 42
