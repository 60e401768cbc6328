"""Several edits at once, against a real sandbox: all of them or none, and nothing beside them."""

import asyncio
import contextlib
import os
import random
import signal
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.workflow.sandbox.support import Host
from tests.workflow.tool.support import Caller
from tests.workflow.tool.test_files import get, put
from workflow.sandbox.base import SandboxError, SandboxUnavailable
from workflow.tool.base import CallLimits, OutcomeUnknown
from workflow.tool.content import Text, digest
from workflow.tool.editing import Edit, EditArgs, View
from workflow.tool.multi_edit import Draft

Arguments = dict[str, str | bool]


def edit(path: str, old: str, new: str, *, everywhere: bool = False) -> Arguments:
    return {"file_path": path, "old_string": old, "new_string": new, "replace_all": everywhere}


async def test_edits_of_several_files_are_made_and_shown(call: Caller) -> None:
    await put(call, "a.py", b"x = 1\ny = x\n")
    await put(call, "b/c.py", b"from a import x\n")
    await call("read_file", file_path="a.py")
    result = await call(
        "multi_edit",
        edits=[edit("a.py", "x", "z", everywhere=True), edit("./b/c.py", "x\n", "z\n"), edit("a.py", "z = 1", "z = 2")],
    )
    assert result.content == (
        "Made 3 edits in 2 files:\n"
        "1/3 /workspace/a.py: 2 places, now lines 1-2, +2 -2\n@@ -1,2 +1,2 @@\n-x = 1\n+z = 1\n-y = x\n+y = z\n"
        "2/3 /workspace/b/c.py: now line 1, +1 -1\n@@ -1,1 +1,1 @@\n-from a import x\n+from a import z\n"
        "3/3 /workspace/a.py: now line 1, +1 -1\n@@ -1,2 +1,2 @@\n-z = 1\n+z = 2\n y = z"
    )
    assert (await get(call, "a.py"), await get(call, "b/c.py")) == (b"z = 2\ny = z\n", b"from a import z\n")
    assert [(kind, data["path"], data["added"], data["sha256"]) for kind, data in result.events] == [
        ("file", "/workspace/a.py", 3, digest(b"z = 2\ny = z\n")),
        ("file", "/workspace/b/c.py", 1, digest(b"from a import z\n")),
    ]
    assert result.memory == {"files": {"/workspace/a.py": {"sha256": digest(b"z = 2\ny = z\n")}}}


async def test_one_edit_that_cannot_be_made_and_none_is(call: Caller) -> None:
    await put(call, "a", b"one\ntwo\n")
    await put(call, "b", b"three\n")
    result = await call(
        "multi_edit",
        edits=[edit("b", "three", "3"), edit("a", "four", "4"), edit("a", "two", "2"), edit("none", "a", "b")],
    )
    assert (result.ok, result.error_code) == (False, "refused")
    lines = result.content.split("\n")
    assert lines[0] == "Nothing was changed: 3 of 4 edits cannot be made."
    assert lines[1] == "- edit 1/4 (/workspace/b): fits"
    assert lines[2].startswith("- edit 2/4 (/workspace/a): old_string does not stand in the file.")
    assert "- edit 3/4 (/workspace/a): not tried, as it comes after the other in the same file" in lines
    assert lines[-1].startswith("- edit 4/4 (/workspace/none): There is no /workspace/none.")
    assert (await get(call, "a"), await get(call, "b")) == (b"one\ntwo\n", b"three\n")


async def test_a_file_and_a_link_to_it_are_not_edited_apart(call: Caller) -> None:
    await put(call, "real", b"a b\n")
    await call("bash", command="ln -s real link")
    result = await call("multi_edit", edits=[edit("real", "a", "1"), edit("link", "b", "2")])
    assert (result.ok, result.error_code) == (False, "refused")
    assert "are the same file" in result.content
    assert await get(call, "real") == b"a b\n"


async def test_what_changed_since_it_was_seen_is_said(call: Caller) -> None:
    await put(call, "a", b"one\n")
    await call("read_file", file_path="a")
    await put(call, "a", b"zero\none\n")
    done = await call("multi_edit", edits=[edit("a", "one", "1")])
    assert "/workspace/a: The file has changed since you last saw it" in done.content
    assert done.memory == {"changed": {"/workspace/a": digest(b"zero\n1\n")}}
    await put(call, "a", b"else\n")
    failed = await call("multi_edit", edits=[edit("a", "1", "2")])
    assert "Read it again." in failed.content


async def test_a_write_between_reading_and_writing_is_not_lost(call: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    await put(call, "a", b"one\n")
    await put(call, "b", b"one\n")
    write = call.box.write

    async def late(*args: object) -> object:
        monkeypatch.setattr(call.box, "write", write)
        await put(call, "b", b"theirs\n")
        return await write(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(call.box, "write", late)
    result = await call("multi_edit", edits=[edit("a", "one", "1"), edit("b", "one", "1")])
    assert result.error_code == "changed_meanwhile"
    assert "/workspace/b was written by somebody else" in result.content
    assert (await get(call, "a"), await get(call, "b")) == (b"one\n", b"theirs\n")


async def test_agents_that_share_a_sandbox_lose_no_edit_of_each_other(call: Caller) -> None:
    """Each counts up in its own line of the same file, and calls again when it is told to."""
    await put(call, "shared", "".join(f"agent {n}: 0 times\n" for n in range(4)).encode())

    async def agent(number: int) -> int:
        own = replace(call, run_id=f"t.r{number}", calls=0)
        refused = 0
        for count in range(5):
            old, new = (f"agent {number}: {n} times" for n in (count, count + 1))
            while not (result := await own("edit_file", file_path="shared", old_string=old, new_string=new)).ok:
                assert result.error_code == "changed_meanwhile"
                refused += 1
        return refused

    refusals = await asyncio.gather(*(agent(number) for number in range(4)))
    assert await get(call, "shared") == "".join(f"agent {n}: 5 times\n" for n in range(4)).encode()
    assert sum(refusals) > 0  # they did get into each other's way


async def test_edits_in_flight_at_a_crash_are_made_once(call: Caller) -> None:
    await put(call, "a", b"one\n")
    edits = [edit("a", "one", "one one")]
    assert await call.recover("c", "multi_edit", edits=edits) is None
    result = await call.run("c", "multi_edit", edits=edits)
    assert await call.recover("c", "multi_edit", edits=edits) == result
    assert await get(call, "a") == b"one one\n"


async def test_long_diffs_and_long_refusals_are_cut(call: Caller) -> None:
    call.limits = CallLimits(output_chars=5_000, read_chars=5_000)
    await put(call, "a", "".join(f"line number {n}\n" for n in range(1_000)).encode())
    assert "characters omitted" in (await call("multi_edit", edits=[edit("a", "line", "row", everywhere=True)])).content
    names = [f"file-{number}" for number in range(50)]
    await put_all(call, names, 0)
    wrong = [edit(name, "is 1.", "is 2.") for name in names]
    assert "characters omitted" in (await call("multi_edit", edits=wrong)).content


async def test_a_sandbox_killed_while_it_edits_has_all_edits_or_none(host: Host, call: Caller) -> None:
    names = [f"file-{number}" for number in range(30)]
    await put_all(call, names, 0)
    dice = random.Random(2)
    loop = asyncio.get_running_loop()
    takes, version, unknown = 0.2, 0, 0
    for kill in range(20):
        edits = [edit(name, f"is {version}.", f"is {kill + 1}.") for name in names]
        begun = loop.time()
        editing = asyncio.create_task(call("multi_edit", edits=edits))
        if kill:  # the first tells how long it takes
            await asyncio.sleep(dice.uniform(takes * 0.3, takes))  # the moment is the point
            _kill_sandboxes(host)
        try:
            await editing
        except (OutcomeUnknown, SandboxUnavailable):
            unknown += 1
        takes = takes if kill else loop.time() - begun
        seen = {await look(call, name) for name in names}
        assert seen in ({f"is {version}.\n"}, {f"is {kill + 1}.\n"})
        version = kill + 1 if seen == {f"is {kill + 1}.\n"} else version
    assert unknown > 0
    assert version > 1


async def put_all(call: Caller, names: list[str], version: int) -> None:
    for name in names:
        await put(call, name, f"is {version}.\n".encode())


async def look(call: Caller, name: str) -> str:
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(SandboxError):  # the kill may still be at work
                return (await get(call, name)).decode()


def _kill_sandboxes(host: Host) -> None:
    for pid, line in host.processes().items():
        if "sandboxd.pyz" in line and "python" in line.split()[0]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


# --- over random files and edits, without a sandbox

PIECE = st.sampled_from(["a", "b", "ab", " ", "  ", "\t", "é", "→", "🙂", "e\u0301", "\u2028", "\x0c", "\x85", "\x00"])
LINE = st.lists(PIECE, max_size=5).map("".join)
RAW = st.sampled_from([b"\xff", b"\xc3", b"\xe2\x80", b"\r", b""])
ENDING = st.sampled_from([b"\n", b"\r\n"])


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    """A file: with or without a mark, endings of one or both kinds, a final one, bytes that are no UTF-8."""
    lines = draw(st.lists(st.tuples(LINE.map(str.encode), RAW, ENDING), max_size=8))
    mark = draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
    last = draw(st.one_of(st.just(b""), LINE.map(str.encode)))
    return mark + b"".join(text + raw + ending for text, raw, ending in lines) + last


@st.composite
def edits_of(draw: st.DrawFn, content: bytes) -> list[EditArgs]:
    """Of pieces that stand in the file, mostly, some of them up to line endings or indentation."""
    edits = []
    text = content.decode("utf-8", "ignore").removeprefix("\ufeff")
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, max(0, len(text) - 1)))
        old = text[start : start + draw(st.integers(1, 12))] or "a"
        old = draw(st.sampled_from([old, old.replace("\r\n", "\n"), old.strip() or old, f" {old}"]))
        new = draw(st.lists(st.one_of(PIECE, st.sampled_from(["\n", "\r\n"])), max_size=6).map("".join))
        everywhere = draw(st.booleans())
        edits.append(EditArgs(file_path="f", old_string=old, new_string=new, replace_all=everywhere))
    return edits


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_edits_one_after_the_other_change_no_byte_outside_of_them(data: st.DataObject) -> None:
    content = data.draw(contents())
    draft = Draft("f", digest(content), Text.decode(content), View(known=False, stale=False))
    assert draft.text.encode() == content
    for args in data.draw(edits_of(content)):
        before = draft.text
        edit = draft.make(args)
        after = draft.text.encode()
        if isinstance(edit, str):
            assert after == before.encode()
            draft.faulty = False
        else:
            assert kept_bytes(edit) == found_bytes(after, edit)
            assert edit.after() == after
            assert after.startswith(b"\xef\xbb\xbf") or not before.bom


def kept_bytes(planned: Edit) -> bytes:
    """What is before, between and behind the places, as bytes of the file that was."""
    text, at, kept = planned.before, 0, []
    for span in planned.spans:
        kept.append(text.text[at : span.start])
        at = span.end
    return b"|".join(piece.encode("utf-8", "surrogateescape") for piece in [*kept, text.text[at:]])


def found_bytes(after: bytes, planned: Edit) -> bytes:
    """The same of the file that came of it, found by counting bytes."""
    offset = 3 if planned.before.bom else 0
    pieces, at = [], 0
    for span in planned.spans:
        length = len(planned.before.text[at : span.start].encode("utf-8", "surrogateescape"))
        pieces.append(after[offset : offset + length])
        offset += length
        new = span.new.encode("utf-8", "surrogateescape")
        assert after[offset : offset + len(new)] == new
        offset += len(new)
        at = span.end
    return b"|".join([*pieces, after[offset:]])


async def test_a_file_of_five_megabytes_keeps_all_its_other_bytes(call: Caller) -> None:
    dice = random.Random(3)
    lines = [bytes(dice.choices(b"abc \xc3\xff", k=60)) for _ in range(87_000)]
    lines[1_000], lines[50_000], lines[-1] = b"  needle one", "  nädel zwei".encode(), b"needle three"
    content = b"\xef\xbb\xbf" + b"\r\n".join(lines)
    assert len(content) > 5 * 1024**2
    await put(call, "big", content)
    edits = [edit("big", "needle one", "1\n2"), edit("big", "nädel zwei", "zwei"), edit("big", "needle three", "3")]
    assert (await call("multi_edit", edits=edits)).ok
    lines[1_000], lines[50_000], lines[-1] = b"  1\r\n2", b"  zwei", b"3"
    assert await get(call, "big") == b"\xef\xbb\xbf" + b"\r\n".join(lines)
    assert (await call("edit_file", file_path="big", old_string="zwei\n", new_string="2\n")).ok
    lines[50_000] = b"  2"
    assert await get(call, "big") == b"\xef\xbb\xbf" + b"\r\n".join(lines)
