"""The spool keeps both ends of an output, tells exactly what it dropped, and never takes more memory than it may."""

from hypothesis import given
from hypothesis import strategies as st

from workflow.sandbox.sandboxd_text import whole_characters
from workflow.sandbox.spool import Spool

CHUNKS = st.lists(st.binary(max_size=40), max_size=30)
TEXTS = st.text(alphabet=st.sampled_from("ab\nä€😀"), max_size=200)


@given(CHUNKS, st.integers(0, 60), st.integers(0, 60))
def test_it_keeps_the_first_and_the_last_bytes(chunks: list[bytes], head: int, tail: int) -> None:
    spool, whole = Spool(head, tail), b"".join(chunks)
    for chunk in chunks:
        spool.append(chunk)
        assert spool.kept <= head + tail
    assert spool.total == len(whole)
    assert spool.dropped == max(0, len(whole) - head - tail)
    kept_head, _ = spool.read(0, head)
    kept_tail, start = spool.read(len(kept_head), len(whole))
    assert kept_head == whole[:head]
    assert kept_tail == whole[start:]
    assert start == max(len(kept_head), len(whole) - tail)


@given(CHUNKS, st.integers(0, 60), st.integers(0, 60), st.integers(1, 17))
def test_reading_on_and_on_gives_all_that_is_kept_once(chunks: list[bytes], head: int, tail: int, step: int) -> None:
    spool, whole = Spool(head, tail), b"".join(chunks)
    for chunk in chunks:
        spool.append(chunk)
    offset, read, skipped = 0, b"", 0
    while offset < spool.total:
        data, start = spool.read(offset, step)
        assert data == whole[start : start + len(data)]
        skipped += start - offset
        read += data
        offset = start + len(data)
    assert len(read) == spool.kept
    assert skipped == spool.dropped


@given(CHUNKS, CHUNKS)
def test_what_is_discarded_counts_as_dropped(before: list[bytes], after: list[bytes]) -> None:
    spool = Spool(20, 20)
    for chunk in before:
        spool.append(chunk)
    spool.discard()
    assert spool.kept == 0
    for chunk in after:
        spool.append(chunk)
    whole = b"".join([*before, *after])
    assert spool.total == len(whole) == spool.kept + spool.dropped
    data, start = spool.read(0, len(whole) + 1)
    assert data == whole[start:] == whole[len(whole) - len(data) :]


@given(TEXTS, st.integers(1, 60))
def test_shown_text_is_the_whole_or_its_two_ends(text: str, chars: int) -> None:
    spool = Spool()
    spool.append(text.encode())
    output = spool.output(chars)
    if len(text) <= chars:
        assert (output.head, output.tail, output.truncated) == (text, "", False)
    else:
        assert text.startswith(output.head)
        assert text.endswith(output.tail)
        assert len(output.head) + len(output.tail) == chars
        assert output.omitted_bytes == len(text.encode()) - len((output.head + output.tail).encode())
        assert output.cut_line == output.head.count("\n") + 1


@given(TEXTS, st.integers(0, 3))
def test_a_character_that_is_cut_at_the_end_waits(text: str, cut: int) -> None:
    data = text.encode()
    data = data[: len(data) - cut]
    whole = whole_characters(data)
    assert text.startswith(data[:whole].decode())
    assert len(data) - whole < 4


def test_bytes_that_are_no_text_are_no_reason_to_wait() -> None:
    assert whole_characters(b"a\xff\xff") == 3
    assert whole_characters(b"a\xe2\x82") == 1
