"""Files of a sandbox up and down, over a real gateway and a real sandbox host."""

import asyncio
import io
import tarfile
from hashlib import sha256
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.gateway.sandboxes.conftest import gateway, host
from tests.gateway.support import KEY, Gateway
from trunkline import AsyncTrunkline, NotFound, PayloadTooLarge, PreconditionFailed, Trunkline
from trunkline.cli import app

LARGE = bytes(range(256)) * 8000  # many pieces, each way


__all__ = ["gateway", "host"]


async def test_files_go_up_and_come_down_whole(trunkline: AsyncTrunkline, tmp_path: Path) -> None:
    files, thread = trunkline.threads.files, await trunkline.threads.initiate()
    assert (await files.list(thread.id)).entries == []
    (tmp_path / "large.bin").write_bytes(LARGE)
    written = await files.write(thread.id, "data/large ü.bin", tmp_path / "large.bin")
    assert (written.size, written.sha256) == (len(LARGE), sha256(LARGE).hexdigest())
    assert await files.download(thread.id, "data/large ü.bin", tmp_path / "back.bin") == len(LARGE)
    assert (tmp_path / "back.bin").read_bytes() == LARGE
    [entry] = (await files.list(thread.id, "data")).entries
    assert (entry.path, entry.kind, entry.size) == ("large ü.bin", "file", len(LARGE))
    with tarfile.open(fileobj=io.BytesIO(await files.read(thread.id, "data", archive=True))) as archive:
        assert any(name.endswith("large ü.bin") for name in archive.getnames())
    with pytest.raises(NotFound):
        await files.read(thread.id, "nowhere")


async def test_a_file_that_another_has_changed_is_not_overwritten(trunkline: AsyncTrunkline) -> None:
    files, thread = trunkline.threads.files, await trunkline.threads.initiate()
    first = await files.write(thread.id, "a", b"one")
    await files.write(thread.id, "a", b"two", expect=first.sha256)
    with pytest.raises(PreconditionFailed):
        await files.write(thread.id, "a", b"three", expect=first.sha256)
    assert await files.read(thread.id, "a") == b"two"


async def test_a_file_that_is_too_large_is_refused(trunkline: AsyncTrunkline, tmp_path: Path) -> None:
    thread = await trunkline.threads.initiate()
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(100_000_000)
    with pytest.raises(PayloadTooLarge):
        await trunkline.threads.files.write(thread.id, "huge", tmp_path / "huge")
    assert (await trunkline.threads.files.list(thread.id)).entries == []


async def test_the_command_line_lists_sends_and_fetches(gateway: Gateway, tmp_path: Path) -> None:
    server = ["--url", f"http://127.0.0.1:{gateway.port}", "--key", KEY]
    (tmp_path / "sent").write_text("text")

    def work() -> list[str]:
        with Trunkline(f"http://127.0.0.1:{gateway.port}", KEY) as client:
            thread_id = client.threads.initiate().id
        commands = [
            ["put", thread_id, str(tmp_path / "sent"), "notes/sent.txt"],
            ["list", thread_id],
            ["get", thread_id, "notes/sent.txt", str(tmp_path)],
        ]
        return [CliRunner().invoke(app, ["files", *command, *server]).stdout for command in commands]

    put, listed, got = await asyncio.to_thread(work)
    assert put == "/workspace/notes/sent.txt  4 bytes\n"
    assert "notes/" in listed
    assert got == f"{tmp_path / 'sent.txt'}  4 bytes\n"
    assert (tmp_path / "sent.txt").read_text() == "text"
