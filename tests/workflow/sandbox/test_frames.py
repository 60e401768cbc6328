"""Frames: whatever the pieces they arrive in, and whatever a hostile sandbox sends."""

import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow.sandbox.frames import MAX_DATA, MAX_JSON, Decoder, FrameError, encode

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3), max_leaves=5
)
MESSAGES = st.dictionaries(st.text(max_size=10), JSON_VALUES, max_size=4)


@given(st.lists(st.tuples(MESSAGES, st.binary(max_size=300)), max_size=6), st.lists(st.integers(1, 200)))
def test_frames_come_out_as_they_went_in_however_they_are_cut(
    frames: list[tuple[dict[str, Any], bytes]], cuts: list[int]
) -> None:
    stream = b"".join(encode(message, data) for message, data in frames)
    decoder, received = Decoder(), []
    for cut in [*cuts, len(stream)]:
        piece, stream = stream[:cut], stream[cut:]
        received += decoder.feed(piece)
    assert received == frames


@given(st.binary(max_size=400))
def test_noise_gives_frames_or_an_error_and_nothing_else(noise: bytes) -> None:
    try:
        frames = Decoder().feed(noise)
    except FrameError:
        return
    assert all(isinstance(message, dict) for message, _ in frames)


@pytest.mark.parametrize(("json_length", "data_length"), [(MAX_JSON + 1, 0), (2, MAX_DATA + 1), (2**32 - 1, 2**32 - 1)])
def test_a_huge_frame_is_refused_at_its_first_bytes(json_length: int, data_length: int) -> None:
    with pytest.raises(FrameError, match="too long"):
        Decoder().feed(struct.pack(">II", json_length, data_length))


@pytest.mark.parametrize("text", [b"[1]", b"1", b"null", b"{", b"\xff", b"[" * 100_000, b'{"a": NaN'])
def test_what_is_no_object_is_refused(text: bytes) -> None:
    with pytest.raises(FrameError, match="not"):
        Decoder().feed(struct.pack(">II", len(text), 0) + text)


def test_what_would_be_refused_is_not_sent() -> None:
    with pytest.raises(FrameError):
        encode({"text": "x" * MAX_JSON})
    with pytest.raises(FrameError):
        encode({}, bytes(MAX_DATA + 1))
    assert len(encode({}, bytes(MAX_DATA))) == MAX_DATA + 8 + len(json.dumps({}))
