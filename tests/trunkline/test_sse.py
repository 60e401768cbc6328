"""The wire format, whatever way its bytes are cut."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.sse import Frame, frames

STREAM = (
    "retry: 1000\n\n"
    "event: waiting\ndata: {}\n\n"
    ":\n"
    'id: 1-0\nevent: task_agent_execute\ndata: {"text": "a\u2028b\u0085c"}\n\n'
    "id:1-1\ndata:one\ndata: two\n\n"
    "id: 1-2\ndata: cut off"
).encode()

READ = [
    Frame("message", "", None, 1000),
    Frame("waiting", "{}", None, None),
    Frame("task_agent_execute", '{"text": "a\u2028b\u0085c"}', "1-0", None),
    Frame("message", "one\ntwo", "1-1", None),
]


@given(cuts=st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_frames_do_not_depend_on_how_the_bytes_arrive(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(STREAM)]
    chunks = [STREAM[start:end] for start, end in itertools.pairwise(places)]
    assert list(frames(chunks)) == READ


def test_carriage_returns_before_line_feeds_are_no_part_of_a_line() -> None:
    assert list(frames([b"id: 1-0\r\ndata: x\r\n\r\n"])) == [Frame("message", "x", "1-0", None)]


@pytest.mark.parametrize("text", ["", ":\n\n", "event: e\n\n", "id: 1-0\n\n"])
def test_what_has_no_data_is_no_frame(text: str) -> None:
    assert list(frames([text.encode()])) == []
