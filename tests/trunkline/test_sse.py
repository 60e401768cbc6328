"""The wire format, whatever way its bytes are cut."""

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.sse import Decoder, Frame

STREAM = (
    "\ufeffretry: 1000\n\n"
    "event: waiting\ndata: {}\n\n"
    ":\n"
    'id: 1-0\nevent: task_agent_execute\ndata: {"text": "a\u2028b\u0085c"}\n\n'
    "id:1-1\ndata:one\ndata: two\n\n"
    "id: 1-2\ndata: cut off"
)

READ = [
    Frame("message", "", None, 1000),
    Frame("waiting", "{}", None, None),
    Frame("task_agent_execute", '{"text": "a\u2028b\u0085c"}', "1-0", None),
    Frame("message", "one\ntwo", "1-1", None),
]


def frames(chunks: Iterable[bytes]) -> list[Frame]:
    decoder = Decoder()
    return [frame for chunk in chunks for frame in decoder.feed(chunk)]


@given(cuts=st.lists(st.integers(0, 300), max_size=8), line_end=st.sampled_from(["\n", "\r\n", "\r"]))
def test_frames_do_not_depend_on_how_the_bytes_arrive_or_how_lines_end(cuts: list[int], line_end: str) -> None:
    stream = STREAM.replace("\n", line_end).encode()
    places = [0, *sorted(cuts), len(stream)]
    assert frames(stream[start:end] for start, end in itertools.pairwise(places)) == READ


@pytest.mark.parametrize("text", ["", ":\n\n", "event: e\n\n", "id: 1-0\n\n"])
def test_what_has_no_data_is_no_frame(text: str) -> None:
    assert frames([text.encode()]) == []
