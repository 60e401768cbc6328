"""A sandbox as its host keeps it, over processes that do as the test says."""

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from shared.config import SandboxSettings
from shared.ids import new_thread_id
from workflow.sandbox import sandboxes, wire
from workflow.sandbox.base import Command, FileMissing, SandboxLost, SandboxRefused
from workflow.sandbox.bwrap import Profile
from workflow.sandbox.frames import Decoder, encode
from workflow.sandbox.hosted import HostedSandbox
from workflow.sandbox.inside import Ground, Inside
from workflow.sandbox.link import Link

SETTINGS = SandboxSettings()
GROUND = Ground(SETTINGS, Profile("bwrap", "python3", (), b"", b"", b"", SETTINGS.memory_bytes), None)


class Puppet(Inside):
    """A link whose other end is the test's. `on_stop` happens when it is to end for good."""

    def __init__(self) -> None:
        ours, self.theirs = socket.socketpair()
        self.theirs.setblocking(False)
        self.link = Link(ours)
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.failure: Exception | None = None

    def memory_kills(self) -> int:
        return 0

    def kill(self) -> None:
        self.theirs.close()

    async def stop(self) -> None:
        self.kill()
        await self.may_end.wait()
        await self.link.close()
        if self.failure:
            raise self.failure

    async def asked(self) -> dict[str, Any]:
        """The next request."""
        received = await asyncio.get_running_loop().sock_recv(self.theirs, 65536)
        [(message, _)] = Decoder().feed(received)
        return message

    async def answer(self, **fields: Any) -> None:
        """To the next request."""
        message = await self.asked()
        frame = encode({"id": message["id"], "done": True, **fields})
        await asyncio.get_running_loop().sock_sendall(self.theirs, frame)


class Theatre:
    """A sandbox, and the puppets that were its processes, one after the other."""

    def __init__(self, folder: Path) -> None:
        self.puppets: list[Puppet] = []
        self.sandbox = HostedSandbox(new_thread_id(), GROUND, folder, self.start, lambda size: None)

    async def start(self, _: HostedSandbox) -> Puppet:
        puppet = Puppet()
        await puppet.link.open()
        self.puppets.append(puppet)
        return puppet

    async def begins(self, command: str) -> None:
        """Until it runs."""
        count = len(self.puppets)
        self.sandbox.commands.exec(Command(f"run/{command}", 1, command))
        async with asyncio.timeout(5):
            while len(self.puppets) == count:
                await asyncio.sleep(0)
        await self.puppets[-1].asked()


@pytest.fixture
async def theatre(tmp_path: Path) -> AsyncIterator[Theatre]:
    theatre = Theatre(tmp_path)
    yield theatre
    async with asyncio.timeout(5):
        await theatre.sandbox.stop("over")


async def test_putting_it_to_rest_waits_for_no_command_that_began_since(theatre: Theatre) -> None:
    await theatre.begins("first")
    first = theatre.puppets[0]
    first.may_end.clear()
    resting = asyncio.create_task(theatre.sandbox.stop("rest"))
    await first.link.closed.wait()
    record = theatre.sandbox.commands.exec(Command("run/second", 1, "second"))
    first.may_end.set()
    async with asyncio.timeout(5):
        await resting
    assert not record.ended
    assert theatre.sandbox.commands.output_of("run/first").killed_by == "rest"


async def test_a_sandbox_whose_end_went_wrong_can_be_started_again(
    theatre: Theatre, caplog: pytest.LogCaptureFixture
) -> None:
    await theatre.begins("first")
    theatre.puppets[0].failure = OSError("too many open files")
    await theatre.sandbox.stop("rest")
    assert theatre.sandbox.inside is None
    assert "too many open files" in caplog.text
    await theatre.begins("second")


@pytest.mark.parametrize("hashes", [[], ["1"], ["1", "2", "3"], "12", [1, 2]])
async def test_hashes_that_do_not_fit_the_question_are_refused(theatre: Theatre, hashes: object) -> None:
    asking = asyncio.create_task(theatre.sandbox.hashes(["a", "b"]))
    await _started(theatre)
    await theatre.puppets[0].answer(hashes=hashes)
    with pytest.raises(SandboxRefused, match="no sense"):
        await asking


async def test_a_path_that_is_no_text_is_refused_in_words_that_can_be_sent(theatre: Theatre) -> None:
    asking = asyncio.create_task(theatre.sandbox.stat("a"))
    await _started(theatre)
    await theatre.puppets[0].answer(error="missing", text="\ud800 does not exist", path="/\udcff")
    with pytest.raises(FileMissing) as missing:
        await asking
    assert wire.encode(wire.error_to_json(missing.value))


async def test_what_is_too_long_for_the_link_is_refused(theatre: Theatre) -> None:
    with pytest.raises(SandboxRefused, match="too long"):
        await theatre.sandbox.hashes(["x" * 4000] * 1000)
    record = theatre.sandbox.commands.exec(Command("run/1", 1, "true", env={"X": "y" * 2_000_000}))
    await asyncio.wait_for(record.wait(), 5)
    assert isinstance(record.failure, SandboxRefused)


async def test_a_fault_of_the_host_ends_the_command_and_is_in_the_log(
    theatre: Theatre, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Link, "start", fail)
    record = theatre.sandbox.commands.exec(Command("run/1", 1, "true"))
    await asyncio.wait_for(record.wait(), 5)
    assert isinstance(record.failure, SandboxLost)
    assert "a bug" in caplog.text
    with pytest.raises(SandboxLost):  # nobody can tell whether it took effect
        theatre.sandbox.commands.exec(Command("run/1", 1, "true"))


async def test_of_the_sandboxes_at_rest_the_one_used_last_is_remembered_longest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandboxes, "REMEMBERED", 2)
    host = sandboxes.Sandboxes(SETTINGS, tmp_path)
    host.ground = GROUND
    oldest, newest, middle, in_use = (host.get(new_thread_id()) for _ in range(4))
    async with in_use.used():
        for sandbox in (middle, newest):
            async with sandbox.used():
                pass
        host._forget()
        for sandbox in (newest, middle, in_use):
            assert host.get(sandbox.thread_id) is sandbox
        assert host.get(oldest.thread_id) is not oldest


async def _started(theatre: Theatre) -> None:
    async with asyncio.timeout(5):
        while not theatre.puppets:
            await asyncio.sleep(0)
