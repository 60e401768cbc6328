"""The Docker adapter, as far as it can be seen without an engine."""

import asyncio
import socket
import subprocess
import sys
import threading
from unittest.mock import MagicMock

import pytest
from docker.errors import NotFound

from shared.config import DockerSettings
from shared.install import Install
from workflow.sandbox.base import Network, SandboxUnavailable
from workflow.sandbox.docker import FRAME, DockerCloud, DockerMachine, Engine, container_options, packed, unpacked
from workflow.sandbox.line import unavailable
from workflow.sandbox.machine import Machine, MachineUnreachable, Ran


def test_a_container_may_do_nothing_but_use_up_what_it_is_given() -> None:
    options = container_options(DockerSettings(), Network(), "trunkline-x", {"trunkline-thread": "t"})
    assert options["network_mode"] == "none"
    assert options["read_only"] is True
    assert options["cap_drop"] == ["ALL"]
    assert options["security_opt"] == ["no-new-privileges:true"]
    assert options["user"] == "1000:1000"
    assert (options["pids_limit"], options["nano_cpus"]) == (256, 1_000_000_000)
    assert options["mem_limit"] == options["memswap_limit"] == 1024**3
    assert not {"privileged", "devices", "cap_add", "pid_mode", "mounts"} & options.keys()


def test_a_container_has_a_network_only_where_it_may_reach_all_of_it() -> None:
    settings = DockerSettings(network="agents")
    for policy, mode in (("none", "none"), ("allow", "none"), ("open", "agents")):
        assert container_options(settings, Network(policy), "x", {})["network_mode"] == mode  # type: ignore[arg-type]


def test_only_volumes_of_its_own_are_mounted_into_a_container() -> None:
    options = container_options(DockerSettings(), Network(), "trunkline-x", {})
    binds = {volume: mount["bind"] for volume, mount in options["volumes"].items()}
    assert binds == {"trunkline-x-workspace": "/workspace", "trunkline-x-home": "/home/user"}


def test_a_file_goes_into_a_container_as_its_users_and_comes_back() -> None:
    content = bytes(range(256)) * 100
    assert unpacked(packed("name", content)) == content


async def test_an_engine_that_does_not_answer_makes_sandboxes_unavailable() -> None:
    cloud = DockerCloud(DockerSettings(url="tcp://127.0.0.1:1"), Network(), Install("tests", "tests"))
    with pytest.raises(MachineUnreachable) as error:
        await cloud.find()
    assert isinstance(unavailable("docker", error.value), SandboxUnavailable)
    await cloud.close()


async def test_a_volume_that_is_gone_already_keeps_no_other_one() -> None:
    cloud = DockerCloud(DockerSettings(), Network(), Install("tests", "tests"))
    cloud._known = engine = MagicMock()
    engine.containers.get.return_value.name = "x"
    there = MagicMock()

    def volume(name: str) -> MagicMock:
        if name == "x-workspace":
            raise NotFound("no such volume")
        return there

    engine.volumes.get.side_effect = volume
    await cloud.remove("c")
    engine.volumes.get.assert_called_with("x-home")
    there.remove.assert_called_once_with(force=True)


async def test_what_a_program_in_a_container_prints_comes_with_its_exit_code() -> None:
    container = MagicMock(id="c")
    api = container.client.api
    api.exec_create.return_value = {"Id": "e"}
    api.exec_start.return_value.__iter__.return_value = iter([(b"o\xc3", None), (None, b"e"), (b"\xa4", None)])
    api.exec_inspect.return_value = {"ExitCode": 3}
    assert await DockerMachine(Engine(), container).run("script", 10) == Ran(3, "oä", "e")
    api.exec_inspect.assert_called_once_with("e")


def engine_that_runs_here(container: MagicMock, *, noise: bytes = b"") -> list[socket.socket]:
    """Programs attached to are this machine's; their output comes in the engine's frames, after `noise` of its own."""
    ends: list[socket.socket] = []

    def attach(begun: str, **_: object) -> socket.socket:
        ours, theirs = socket.socketpair()
        ends.extend((ours, theirs))
        command = container.client.api.exec_create.call_args.args[1]
        program = subprocess.Popen(
            [sys.executable, *command[1:]], stdin=theirs.fileno(), stdout=subprocess.PIPE, bufsize=0
        )

        def frame() -> None:
            assert program.stdout
            with program, theirs:
                theirs.sendall(FRAME.pack(2, len(noise)) + noise)
                while piece := program.stdout.read(5):
                    theirs.sendall(FRAME.pack(1, len(piece)) + piece)
                theirs.shutdown(socket.SHUT_RDWR)

        threading.Thread(target=frame).start()
        return ours

    container.client.api.exec_start.side_effect = attach
    return ends


async def test_a_port_of_a_container_without_a_network_is_reached_by_a_program_in_it() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read()).upper())
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    container = MagicMock(id="c")
    ends = engine_that_runs_here(container, noise=b"a warning")
    machine: Machine = DockerMachine(Engine(), container)
    way = await machine.way(server.sockets[0].getsockname()[1])
    assert await machine.expose(80, 60) is None
    stream = await way.open()
    await stream.write(b"hello " * 50_000)
    stream.end()
    came = bytearray()
    async with asyncio.timeout(10):
        while piece := await stream.read():
            came += piece
    assert bytes(came) == b"HELLO " * 50_000
    assert way.headers == {}
    stream.close()
    ends[0].close()
    server.close()


async def test_calls_that_the_engine_does_not_answer_leave_the_loops_own_threads_free() -> None:
    writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: writers.append(writer), "127.0.0.1", 0)
    cloud = DockerCloud(
        DockerSettings(url=f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"),
        Network(),
        Install("tests", "tests"),
    )
    calls = [asyncio.create_task(cloud.find()) for _ in range(40)]
    try:
        async with asyncio.timeout(20):
            await asyncio.to_thread(int)
            while len(writers) < len(calls):
                await asyncio.sleep(0.01)
    finally:
        server.close()
        for writer in writers:
            writer.close()
        results = await asyncio.gather(*calls, return_exceptions=True)
        await cloud.close()
    assert {type(result) for result in results} == {MachineUnreachable}
