"""What comes out of a machine is its agent's, who may have put another program in the place of ours."""

import base64
import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from shared.ids import new_thread_id
from shared.install import Install
from tests.support.daytona_double import DaytonaDouble, toolbox
from tests.support.flood import Flood
from tests.workflow.sandbox.conformance.conftest import daytona_settings, remote_settings
from workflow.sandbox import machine as machine_module
from workflow.sandbox.base import MAX_READ_BYTES, SandboxRefused
from workflow.sandbox.choose import choose_provider
from workflow.sandbox.docker import DockerMachine, Engine, packed
from workflow.sandbox.helper import Helper
from workflow.sandbox.machine import Machine, Ran
from workflow.sandbox.remote_provider import RemoteProvider

FOLDER = "/home/user/.trunkline"
OUTBOX = f"{FOLDER}/outbox/0123456789abcdef"
LARGE = 3_000_000
FLOOD = 200_000_000


class Fooled:
    """A machine that answers every request by a file."""

    machine_id = "m"

    def __init__(self, path: str, length: object) -> None:
        self._answer = {"file": path, "length": length}
        self.fetched: list[tuple[str, int]] = []

    async def run(self, script: str, seconds: float) -> Ran:
        found = re.search(r"remote \S+ (\S+)$", script)
        assert found
        mark = json.loads(base64.b64decode(found[1]).partition(b"\n")[0])["mark"]
        return Ran(0, f"\n{mark}{json.dumps(self._answer)}\n", "")

    async def get(self, path: str, limit: int) -> bytes:
        self.fetched.append((path, limit))
        return b"content"


@pytest.mark.parametrize(
    ("path", "length"),
    [
        ("/tmp/100-gigabytes", 7),
        (f"{FOLDER}/outbox/../../100-gigabytes", 7),
        (f"{OUTBOX}\n", 7),
        (OUTBOX, 100 * 2**30),
        (OUTBOX, MAX_READ_BYTES + 1),
        (OUTBOX, -1),
        (OUTBOX, "7"),
        (OUTBOX, None),
    ],
)
async def test_a_file_that_is_no_answer_of_ours_is_not_fetched(path: str, length: object) -> None:
    machine: Any = Fooled(path, length)
    with pytest.raises(SandboxRefused):
        await Helper(machine, FOLDER).ask("read", {"path": "x"})
    assert machine.fetched == []


async def test_of_an_answer_no_more_is_fetched_than_was_told() -> None:
    machine: Any = Fooled(OUTBOX, 7)
    _, content = await Helper(machine, FOLDER).ask("read", {"path": "x"})
    assert content == b"content"
    assert machine.fetched == [(OUTBOX, 7)]


@pytest.fixture(params=["e2b_double", "daytona_double"])
async def machine(request: pytest.FixtureRequest) -> AsyncIterator[Machine]:
    async with remote_settings(request.param) as settings:
        provider = choose_provider(settings, Install("tests", "tests"))
        assert isinstance(provider, RemoteProvider)
        yield await provider.cloud.create(new_thread_id(), None)
        await provider.close()


async def test_a_file_larger_than_expected_is_cut_off(machine: Machine) -> None:
    await machine.put("/workspace/large", bytes(LARGE))
    assert await machine.get("/workspace/large", LARGE) == bytes(LARGE)
    with pytest.raises(SandboxRefused, match="more than"):
        await machine.get("/workspace/large", LARGE - 1)
    assert (await machine.run("echo fine", 10)).stdout == "fine\n"


async def test_a_program_that_prints_without_end_is_cut_off(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_module, "MAX_PRINTED", LARGE)
    assert len((await machine.run(f"head -c {LARGE} /dev/zero | tr '\\0' x", 60)).stdout) == LARGE
    with pytest.raises(SandboxRefused, match="more than"):
        await machine.run(f"head -c {LARGE + 1} /dev/zero | tr '\\0' x", 60)
    assert (await machine.run("echo fine", 10)).stdout == "fine\n"


async def test_daytona_is_hung_up_on_when_its_answer_has_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    flood = Flood(b"x" * LARGE, FLOOD, first=b'{"exitCode": 0, "result": "')
    monkeypatch.setattr(toolbox, "_execute", flood.serve)
    async with DaytonaDouble() as double:
        provider = choose_provider(daytona_settings(double), Install("tests", "tests"))
        assert isinstance(provider, RemoteProvider)
        machine = await provider.cloud.create(new_thread_id(), None)
        monkeypatch.setattr(machine_module, "MAX_PRINTED", LARGE)
        with pytest.raises(SandboxRefused, match="more than"):
            await machine.run("yes", 60)
        await provider.close()
    assert flood.sent < FLOOD


class Container:
    """As Docker's SDK has it; it sends `told` without end, and counts the pieces."""

    id = "c"

    def __init__(self, told: bytes) -> None:
        self.client = self
        self.api = self
        self._told = told
        self.sent = 0
        self.closed = False

    def get_archive(self, _: str) -> tuple[Iterator[bytes], None]:
        return self._endless(), None

    def exec_create(self, *_: object) -> dict[str, str]:
        return {"Id": "e"}

    def exec_start(self, _: str, **__: object) -> "Container":
        return self

    def __iter__(self) -> Iterator[tuple[bytes, None]]:
        return ((piece, None) for piece in self._endless())

    def close(self) -> None:
        self.closed = True

    def _endless(self) -> Iterator[bytes]:
        while True:
            self.sent += 1
            yield self._told


async def test_a_container_that_sends_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    container = Container(bytes(100_000))
    with pytest.raises(SandboxRefused, match="more than"):
        await DockerMachine(Engine(), container).get("/x", 1_000_000)
    assert container.sent <= 12
    monkeypatch.setattr(machine_module, "MAX_PRINTED", 1_000_000)
    container = Container(bytes(100_000))
    with pytest.raises(SandboxRefused, match="more than"):
        await DockerMachine(Engine(), container).run("yes", 10)
    assert container.sent <= 11
    assert container.closed


async def test_a_file_of_the_size_that_was_told_comes_out_of_a_container() -> None:
    class Once(Container):
        def get_archive(self, _: str) -> tuple[Iterator[bytes], None]:
            return iter([packed("x", bytes(LARGE))]), None

    assert await DockerMachine(Engine(), Once(b"")).get("/x", LARGE) == bytes(LARGE)
