"""File operations, whoever provides the sandbox."""

import asyncio
import hashlib

import pytest

from tests.workflow.sandbox.conformance.box import Box
from workflow.sandbox.base import (
    MAX_READ_BYTES,
    FileChanged,
    FileError,
    FileKind,
    FileMissing,
    FileWrite,
    NotRegular,
    SandboxRefused,
)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


async def write(box: Box, *files: FileWrite) -> None:
    await box.sandbox.write(files, box.key(), 1, b"")


async def test_what_is_written_is_read(box: Box) -> None:
    content = bytes(range(256)) * 10
    await write(box, FileWrite("a/deep/folder/file.bin", content))
    data = await box.sandbox.read("/workspace/a/deep/folder/file.bin")
    assert data.content == content
    assert (data.info.size, data.sha256, data.info.mode) == (2560, sha256(content), 0o644)
    assert data.info.path == "/workspace/a/deep/folder/file.bin"
    piece = await box.sandbox.read("a/deep/folder/file.bin", offset=2550, limit=100)
    assert (piece.content, piece.info.size, piece.sha256) == (content[2550:], 2560, sha256(content))


async def test_a_file_too_large_for_one_answer_is_read_in_pieces(box: Box) -> None:
    await box.run(f"head -c {MAX_READ_BYTES + 10} /dev/zero > big; head -c 70M /dev/zero > huge")
    with pytest.raises(SandboxRefused, match="in pieces"):
        await box.sandbox.read("big")
    tail = await box.sandbox.read("big", offset=MAX_READ_BYTES)
    assert tail.content == bytes(10)
    assert (await box.sandbox.read("huge", limit=1)).sha256 is None


async def test_a_mode_is_kept_and_execution_can_be_set(box: Box) -> None:
    await box.run("echo old > script; chmod 750 script")
    await write(box, FileWrite("script", b"new"))
    assert (await box.sandbox.stat("script")).mode == 0o750
    await write(box, FileWrite("script", b"new", executable=False), FileWrite("tool", b"", executable=True))
    assert (await box.sandbox.stat("script")).mode == 0o640
    assert (await box.sandbox.stat("tool")).mode == 0o755


async def test_a_link_stays_a_link_and_its_target_is_written(box: Box) -> None:
    await box.run("mkdir real; echo old > real/file; ln -s real/file link")
    await write(box, FileWrite("link", b"new"))
    assert await box.text("cat real/file; readlink link") == "newreal/file\n"


async def test_nothing_is_written_unless_all_can_be(box: Box) -> None:
    await write(box, FileWrite("kept", b"old"))
    await box.run("mkdir folder")
    for bad in (
        FileWrite("folder", b""),
        FileWrite("kept/below", b""),
        FileWrite("kept", b"", expect="absent"),
        FileWrite("kept", b"", expect=sha256(b"other")),
        FileWrite("/usr/lib/x", b""),
        FileWrite("n" * 300, b""),
        FileWrite("a\0b", b""),
    ):
        with pytest.raises(FileError):
            await write(box, FileWrite("kept", b"new"), FileWrite("fresh", b"x"), bad)
    assert await box.text("cat kept; ls -A") == "oldfolder\nkept\n"


async def test_an_expectation_that_fails_tells_the_actual_hash(box: Box) -> None:
    await write(box, FileWrite("file", b"one", expect="absent"))
    await write(box, FileWrite("file", b"two", expect=sha256(b"one")))
    with pytest.raises(FileChanged) as changed:
        await write(box, FileWrite("file", b"three", expect=sha256(b"one")))
    assert changed.value.sha256 == sha256(b"two")
    with pytest.raises(FileChanged) as missing:
        await write(box, FileWrite("nothing", b"x", expect=sha256(b"")))
    assert missing.value.sha256 is None


async def test_a_repeated_write_gives_its_note_and_writes_no_more(box: Box) -> None:
    key = box.key()
    assert await box.sandbox.recall(key, 1) is None
    first = await box.sandbox.write([FileWrite("file", b"one")], key, 1, b"note \xff")
    await write(box, FileWrite("file", b"changed since"))
    again = await box.sandbox.write([FileWrite("file", b"one")], key, 2, b"another")
    assert (first.note, first.repeated, again.note, again.repeated) == (b"note \xff", False, b"note \xff", True)
    assert await box.sandbox.recall(key, 2) == b"note \xff"
    assert (await box.sandbox.read("file")).content == b"changed since"


async def test_a_write_that_failed_can_be_tried_again_with_its_key(box: Box) -> None:
    key = box.key()
    with pytest.raises(FileError):
        await box.sandbox.write([FileWrite("/usr/x", b"")], key, 1, b"")
    assert await box.sandbox.recall(key, 1) is None
    assert not (await box.sandbox.write([FileWrite("x", b"")], key, 1, b"")).repeated


async def test_the_same_write_twice_at_once_is_done_once(box: Box) -> None:
    key = box.key()
    writes = [box.sandbox.write([FileWrite("x", b"y" * 1_000_000)], key, 1, b"n") for _ in range(5)]
    assert sorted(result.repeated for result in await asyncio.gather(*writes)) == [False, True, True, True, True]


async def test_writes_of_several_files_at_once_are_all_done(box: Box) -> None:
    pairs = [[FileWrite(f"{number}/{name}", str(number).encode()) for name in "ab"] for number in range(8)]
    await asyncio.gather(*(box.sandbox.write(pair, box.key(), 1, b"") for pair in pairs))
    for pair in pairs:
        for file in pair:
            assert (await box.sandbox.read(file.path)).content == file.content


async def test_too_much_at_once_is_refused(box: Box) -> None:
    with pytest.raises(SandboxRefused, match="one by one"):
        await write(box, FileWrite("a", bytes(5 * 1024**2)), FileWrite("b", bytes(5 * 1024**2)))
    with pytest.raises(SandboxRefused, match=r"request is longer|one by one"):
        await write(box, FileWrite("a", bytes(20 * 1024**2)))
    assert await box.text("ls") == ""


@pytest.mark.parametrize("path", ["nothing", "/nothing/below", "folder/../nothing", "../../etc/shadow"])
async def test_a_missing_file_is_told_by_its_path(box: Box, path: str) -> None:
    with pytest.raises(FileMissing) as missing:
        await box.sandbox.read(path)
    assert missing.value.path.endswith(path)


async def test_what_is_no_regular_file_is_told_by_its_kind(box: Box) -> None:
    await box.run("mkdir folder; mkfifo pipe; python3 -c 'import socket; socket.socket(1).bind(\"socket\")'")
    kinds = {
        "folder": FileKind.DIRECTORY,
        "pipe": FileKind.OTHER,
        "socket": FileKind.OTHER,
        "/dev/null": FileKind.OTHER,
    }
    for path, kind in kinds.items():
        with pytest.raises(NotRegular) as refused:
            await box.sandbox.read(path)
        assert refused.value.kind == kind
        assert (await box.sandbox.stat(path)).kind == kind


async def test_a_listing_shows_parents_first_and_counts_what_it_leaves_out(box: Box) -> None:
    await box.run("mkdir -p src/deep/er node_modules/a node_modules/b; touch src/x.py src/deep/y z.txt; ln -s z.txt l")
    listing = await box.sandbox.list(".", depth=2, ignore=["node_modules", "*.tmp"])
    assert [(entry.path, entry.kind.value, entry.children) for entry in listing.entries] == [
        ("l", "symlink", None),
        ("node_modules", "directory", 2),
        ("src", "directory", None),
        ("src/deep", "directory", 2),
        ("src/x.py", "file", None),
        ("z.txt", "file", None),
    ]
    assert not listing.truncated
    assert (await box.sandbox.list(".", limit=2)).truncated
    with pytest.raises(NotRegular):
        await box.sandbox.list("z.txt")
    with pytest.raises(FileMissing):
        await box.sandbox.list("nothing")


async def test_names_that_are_no_text_do_no_harm(box: Box) -> None:
    await box.run(r"touch $'bad\xff\xfename' $'new\nline' ü")
    listing = await box.sandbox.list(".")
    names = [entry.path for entry in listing.entries]
    assert {"new\nline", "ü"} <= set(names)
    assert any("\ufffd" in name for name in names)


async def test_hashes_of_many_files_come_at_once(box: Box) -> None:
    await write(box, FileWrite("a", b"1"), FileWrite("b", b"2"))
    hashes = await box.sandbox.hashes(["a", "b", "nothing", "/usr", "/dev/zero"])
    assert hashes == {"a": sha256(b"1"), "b": sha256(b"2"), "nothing": None, "/usr": None, "/dev/zero": None}


async def test_a_folder_that_cannot_be_entered_is_listed_as_such(box: Box) -> None:
    await box.run("mkdir -p closed/inner; chmod 000 closed")
    listing = await box.sandbox.list(".", depth=3)
    assert [(entry.path, entry.children) for entry in listing.entries] == [("closed", 0)]
    with pytest.raises(FileError, match="Permission denied"):
        await box.sandbox.list("closed")
