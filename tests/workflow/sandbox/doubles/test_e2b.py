"""The double of E2B, driven by E2B's own client."""

import asyncio
import gc
import json
import struct
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import httpx
import pytest
import pytest_asyncio

from tests.support.cloud import Fault, rate_limit, slow
from tests.support.e2b_double import E2BDouble
from tests.support.waiting import until

e2b = pytest.importorskip("e2b")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def double() -> AsyncIterator[E2BDouble]:
    async with E2BDouble() as double:
        yield double


pytestmark = pytest.mark.asyncio(loop_scope="module")


def at(double: E2BDouble, **options: Any) -> dict[str, Any]:
    return {"api_key": double.key, "api_url": double.api_url, "sandbox_url": double.api_url, **options}


@pytest_asyncio.fixture(loop_scope="module")
async def box(double: E2BDouble) -> AsyncIterator[Any]:
    sandbox = await e2b.AsyncSandbox.create(timeout=120, envs={"GREETING": "hello"}, **at(double))
    yield sandbox
    await sandbox.kill()


async def test_a_command_runs_isolated_in_a_login_shell(box: Any) -> None:
    result = await box.commands.run('shopt -q login_shell && echo "$GREETING $HOME $(pwd) $(whoami) $(id -u)"')
    assert result.stdout == "hello /home/user /home/user user 1000\n"
    assert (await box.commands.run("cat /etc/shadow || true")).stdout == ""


async def test_stdout_and_stderr_come_apart_and_a_failure_brings_its_code(box: Any) -> None:
    with pytest.raises(e2b.CommandExitException) as caught:
        await box.commands.run("echo out; echo err >&2; exit 3")
    assert (caught.value.exit_code, caught.value.stdout, caught.value.stderr) == (3, "out\n", "err\n")


async def test_output_comes_while_the_command_runs(box: Any) -> None:
    seen: list[str] = []
    handle = await box.commands.run(
        "echo first; until [ -e go ]; do sleep 0.02; done", background=True, on_stdout=seen.append
    )
    await until(lambda: seen == ["first\n"])
    await box.files.write("go", "")
    assert (await handle.wait()).exit_code == 0


async def test_a_timeout_kills_the_process_and_says_deadline_exceeded(box: Any) -> None:
    with pytest.raises(e2b.TimeoutException):
        await box.commands.run("exec sleep 30", timeout=0.5)

    async def gone() -> bool:
        return not await box.commands.list()

    await until(gone)


async def test_a_timeout_kills_the_shell_but_not_what_it_has_started(box: Any) -> None:
    with pytest.raises(e2b.TimeoutException):
        await box.commands.run("sleep 300.25; true", timeout=1.5)
    assert (await box.commands.run("pgrep -fc 'sleep 300.25' || true")).stdout == "2\n"  # pgrep's own shell is one


async def test_a_process_survives_its_client_and_can_be_followed_again(box: Any) -> None:
    handle = await box.commands.run("until [ -e go ]; do sleep 0.02; done; echo done", background=True)
    await handle.disconnect()
    again = await box.commands.connect(handle.pid)
    await box.files.write("go", "")
    assert (await again.wait()).stdout == "done\n"


async def test_a_client_that_dies_is_no_error_of_the_double(
    box: Any, double: E2BDouble, caplog: pytest.LogCaptureFixture
) -> None:
    message = json.dumps({"process": {"cmd": "/bin/sleep", "args": ["300"]}, "stdin": False}).encode()
    headers = {"E2b-Sandbox-Id": box.sandbox_id, "X-Access-Token": box._envd_access_token}
    headers |= {"Keepalive-Ping-Interval": "0.02", "Content-Type": "application/connect+json"}
    async with aiohttp.ClientSession(double.api_url, headers=headers) as session:
        answer = await session.post("/process.Process/Start", data=struct.pack(">BI", 0, len(message)) + message)
        assert b"start" in await answer.content.readany()
        answer.close()
    await until(lambda: not any("keep_alive" in str(task.get_coro()) for task in asyncio.all_tasks()))
    (process,) = await box.commands.list()
    await box.commands.kill(process.pid)

    async def ended() -> bool:
        return not await box.commands.list()

    await until(ended)
    gc.collect()  # what a task raised is told of once nobody can ask for it any more
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_process_is_listed_and_killed_by_its_pid(box: Any) -> None:
    handle = await box.commands.run("exec sleep 300", background=True)
    (listed,) = [process for process in await box.commands.list() if process.pid == handle.pid]
    assert listed.args == ["-l", "-c", "exec sleep 300"]
    assert await box.commands.kill(handle.pid)
    with pytest.raises(e2b.CommandExitException):
        await handle.wait()

    async def gone() -> bool:
        return not await box.commands.kill(handle.pid)

    await until(gone)


async def test_standard_input_can_be_sent_and_closed(box: Any) -> None:
    handle = await box.commands.run("cat", background=True, stdin=True)
    await box.commands.send_stdin(handle.pid, "typed\n")
    await box.commands.close_stdin(handle.pid)
    assert (await handle.wait()).stdout == "typed\n"


async def test_a_folder_that_is_not_there_is_no_place_to_run(box: Any) -> None:
    with pytest.raises(e2b.InvalidArgumentException, match="does not exist"):
        await box.commands.run("true", cwd="/nowhere")


async def test_a_silent_command_is_kept_alive_by_events(double: E2BDouble, box: Any) -> None:
    body = b'{"process": {"cmd": "/bin/sleep", "args": ["2.5"]}, "stdin": false}'
    headers = {
        "E2b-Sandbox-Id": box.sandbox_id,
        "X-Access-Token": double.boxes[box.sandbox_id].access_token,
        "Content-Type": "application/connect+json",
        "Keepalive-Ping-Interval": "1",
    }
    async with httpx.AsyncClient(base_url=double.url, headers=headers) as client:
        answer = await client.post("/process.Process/Start", content=b"\0" + len(body).to_bytes(4, "big") + body)
    assert 2 <= answer.content.count(b'"keepalive"') < 10  # its end may be noticed late


async def test_files_go_up_and_down_byte_by_byte(box: Any) -> None:
    data = bytes(range(256)) * 4096
    await box.files.write("/workspace/new/folder/blob.bin", data)
    assert bytes(await box.files.read("/workspace/new/folder/blob.bin", format="bytes")) == data
    stream = await box.files.read("/workspace/new/folder/blob.bin", format="stream")
    assert b"".join([piece async for piece in stream]) == data


async def test_several_files_go_up_in_one_call(box: Any) -> None:
    written = await box.files.write_files([{"path": "/tmp/a/1", "data": "one"}, {"path": "2", "data": "zwei ü"}])
    assert [entry.path for entry in written] == ["/tmp/a/1", "/home/user/2"]
    assert await box.files.read("/home/user/2") == "zwei ü"


async def test_a_file_goes_up_compressed(box: Any) -> None:
    await box.files.write("/tmp/zipped", "plain " * 1000, gzip=True)
    assert await box.files.read("/tmp/zipped") == "plain " * 1000


async def test_folders_are_made_listed_moved_and_removed(box: Any) -> None:
    assert await box.files.make_dir("/workspace/src/deep")
    assert not await box.files.make_dir("/workspace/src/deep")
    await box.files.write("/workspace/src/deep/main.py", "print()")
    await box.commands.run("chmod +x main.py && ln -s main.py link", cwd="/workspace/src/deep")
    names = [(entry.path, str(entry.type)) for entry in await box.files.list("/workspace/src", depth=2)]
    assert names == [
        ("/workspace/src/deep", "FileType.DIR"),
        ("/workspace/src/deep/link", "FileType.SYMLINK"),
        ("/workspace/src/deep/main.py", "FileType.FILE"),
    ]
    info = await box.files.get_info("/workspace/src/deep/main.py")
    assert (info.size, info.mode, info.owner) == (7, 0o755, "user")
    moved = await box.files.rename("/workspace/src/deep/main.py", "/workspace/src/main.py")
    assert moved.path == "/workspace/src/main.py"
    await box.files.remove("/workspace/src")
    assert not await box.files.exists("/workspace/src")


async def test_a_missing_file_is_said_to_be_missing(box: Any) -> None:
    with pytest.raises(e2b.FileNotFoundException):
        await box.files.read("/workspace/none")
    with pytest.raises(e2b.FileNotFoundException):
        await box.files.list("/workspace/none")
    with pytest.raises(e2b.InvalidArgumentException, match="is a directory"):
        await box.files.read("/workspace")


async def test_a_paused_sandbox_goes_on_where_it_was(double: E2BDouble, box: Any) -> None:
    handle = await box.commands.run("until [ -e /tmp/go ]; do sleep 0.02; done; echo woke", background=True)
    assert await box.pause()
    assert not await box.pause()
    assert (await box.get_info()).state == e2b.SandboxState.PAUSED
    with pytest.raises(e2b.SandboxNotRunningException):
        await box.files.read("/tmp/go")
    again = await e2b.AsyncSandbox.connect(box.sandbox_id, timeout=60, **at(double))
    await again.files.write("/tmp/go", "")
    assert (await handle.wait()).stdout == "woke\n"


async def test_a_rebooted_sandbox_has_its_files_but_no_processes(double: E2BDouble, box: Any) -> None:
    await box.files.write("/workspace/kept", "kept")
    await box.commands.run("exec sleep 300", background=True)
    await box.pause(mode="filesystem")
    again = await e2b.AsyncSandbox.connect(box.sandbox_id, on_resume="reboot", **at(double))
    assert await again.files.read("/workspace/kept") == "kept"
    assert await again.commands.list() == []


async def test_its_end_is_absolute_and_kills(double: E2BDouble) -> None:
    sandbox = await e2b.AsyncSandbox.create(timeout=3, **at(double))
    command = await sandbox.commands.run("sleep 60", background=True)
    with pytest.raises(e2b.SandboxNotRunningException):
        await command.wait()
    assert sandbox.sandbox_id not in double.alive()
    with pytest.raises(e2b.SandboxNotFoundException):
        await e2b.AsyncSandbox.connect(sandbox.sandbox_id, **at(double))
    with pytest.raises(e2b.SandboxNotRunningException):
        await sandbox.commands.run("true")


async def test_its_end_pauses_where_it_was_created_so(double: E2BDouble) -> None:
    sandbox = await e2b.AsyncSandbox.create(timeout=3, lifecycle={"on_timeout": "pause"}, **at(double))
    await sandbox.files.write("/workspace/kept", "kept")
    await until(lambda: not double.boxes[sandbox.sandbox_id].running)
    again = await e2b.AsyncSandbox.connect(sandbox.sandbox_id, timeout=60, **at(double))
    assert await again.files.read("/workspace/kept") == "kept"
    await again.kill()


async def test_connecting_puts_the_end_off_but_never_nearer(double: E2BDouble, box: Any) -> None:
    before = double.boxes[box.sandbox_id].ends_at
    await e2b.AsyncSandbox.connect(box.sandbox_id, timeout=10, **at(double))
    assert double.boxes[box.sandbox_id].ends_at == before
    await e2b.AsyncSandbox.connect(box.sandbox_id, timeout=600, **at(double))
    assert double.boxes[box.sandbox_id].ends_at > before + 400
    await box.set_timeout(30)
    assert double.boxes[box.sandbox_id].ends_at < before


async def test_a_killed_sandbox_is_gone_for_every_call(double: E2BDouble) -> None:
    sandbox = await e2b.AsyncSandbox.create(timeout=60, **at(double))
    assert await sandbox.kill()
    assert not await sandbox.kill()
    assert not await sandbox.is_running()
    for call in (sandbox.get_info(), sandbox.set_timeout(5), sandbox.pause()):
        with pytest.raises(e2b.SandboxNotFoundException):
            await call
    with pytest.raises(e2b.SandboxNotRunningException):
        await sandbox.files.read("/tmp/x")


async def test_sandboxes_are_listed_by_metadata_and_state_page_by_page(double: E2BDouble) -> None:
    owner = {"owner": "me & you", "kind": "test"}
    made = [await e2b.AsyncSandbox.create(metadata=owner, timeout=60, **at(double)) for _ in range(3)]
    await made[0].pause()
    pages = e2b.AsyncSandbox.list(query=e2b.SandboxQuery(metadata={"owner": "me & you"}), limit=2, **at(double))
    sizes, found = [], []
    while pages.has_next:
        items = await pages.next_items()
        sizes.append(len(items))
        found += items
    assert sizes == [2, 1]
    assert {each.sandbox_id for each in found} == {each.sandbox_id for each in made}
    assert found[0].metadata == owner == double.alive()[found[0].sandbox_id]
    running = e2b.SandboxQuery(metadata=owner, state=[e2b.SandboxState.RUNNING])
    assert len(await e2b.AsyncSandbox.list(query=running, **at(double)).next_items()) == 2
    for sandbox in made:
        await sandbox.kill()


async def test_a_sandbox_whose_creation_nobody_heard_of_is_found_by_its_idempotency_key(double: E2BDouble) -> None:
    before = double.alive().keys()
    double.faults.append(Fault("POST /v2/sandboxes$", status=None, done=True))
    with pytest.raises(httpx.TransportError):
        await e2b.AsyncSandbox.create(idempotency_key="run-1-create", timeout=60, **at(double))
    (made,) = double.alive().keys() - before
    again = await e2b.AsyncSandbox.create(idempotency_key="run-1-create", timeout=60, **at(double))
    assert again.sandbox_id == made
    await again.kill()


async def test_a_fork_and_a_snapshot_have_the_files(double: E2BDouble, box: Any) -> None:
    await box.files.write("/workspace/a", "a")
    await box.files.write("/home/user/.hidden", "b")
    (fork,) = await box.fork(timeout=60)
    snapshot = await box.create_snapshot()
    copy = await e2b.AsyncSandbox.create(snapshot.snapshot_id, timeout=60, **at(double))
    for other in (fork, copy):
        assert (await other.commands.run("cat /workspace/a ~/.hidden")).stdout == "ab"
        await other.kill()
    assert await e2b.AsyncSandbox.delete_snapshot(snapshot.snapshot_id, **at(double))


async def test_a_wrong_key_is_refused(double: E2BDouble) -> None:
    with pytest.raises(e2b.AuthenticationException):
        await e2b.AsyncSandbox.create(**at(double, api_key="e2b_" + "0" * 40))


async def test_too_long_a_life_is_refused(double: E2BDouble) -> None:
    with pytest.raises(e2b.SandboxException, match="greater than 24 hours"):
        await e2b.AsyncSandbox.create(timeout=100_000, **at(double))


async def test_faults_spoil_as_many_calls_as_they_say(double: E2BDouble) -> None:
    double.faults.append(Fault("POST /v2/sandboxes$", 500))
    with pytest.raises(ValueError, match="Expecting value"):  # the client takes every error for JSON
        await e2b.AsyncSandbox.create(**at(double))
    double.faults.append(rate_limit("POST /v2/sandboxes$"))
    with pytest.raises(e2b.RateLimitException):
        await e2b.AsyncSandbox.create(**at(double, retries=0))
    sandbox = await e2b.AsyncSandbox.create(**at(double))
    await sandbox.kill()
    assert double.called(f"DELETE /sandboxes/{sandbox.sandbox_id}") == 1


async def test_a_slow_answer_outlasts_the_patience_of_the_client(double: E2BDouble, box: Any) -> None:
    double.faults.append(slow(f"GET /sandboxes/{box.sandbox_id}", seconds=1))
    with pytest.raises((httpx.TimeoutException, e2b.TimeoutException)):
        await box.get_info(request_timeout=0.2)
    assert (await box.get_info()).sandbox_id == box.sandbox_id


SERVER = """
import asyncio, sys
from http.server import *
class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(201); self.send_header("X-Path", self.path); self.end_headers(); self.wfile.write(body[::-1])
    def log_message(self, *_): pass
ThreadingHTTPServer(("127.0.0.1", 3000), Handler).serve_forever()
"""


async def test_a_port_is_reached_by_its_host_name(double: E2BDouble, box: Any) -> None:
    host = box.get_host(3000)
    async with aiohttp.ClientSession(double.url, headers={"Host": host}) as client:
        async with client.get("/") as answer:
            assert (answer.status, "port is not open" in await answer.text()) == (502, True)
        await box.files.write("server.py", SERVER)
        await box.commands.run("exec python3 server.py", background=True)
        async with asyncio.timeout(10):
            while (answer := await client.post("/a?b=c", data=b"abc")).status != 201:
                await asyncio.sleep(0.05)
        assert (await answer.read(), answer.headers["X-Path"]) == (b"cba", "/a?b=c")


async def test_private_traffic_needs_its_token(double: E2BDouble) -> None:
    sandbox = await e2b.AsyncSandbox.create(timeout=60, network={"allow_public_traffic": False}, **at(double))
    async with httpx.AsyncClient(base_url=double.url, headers={"Host": sandbox.get_host(3000)}) as client:
        assert (await client.get("/")).status_code == 403
        allowed = {"e2b-traffic-access-token": sandbox.traffic_access_token}
        assert (await client.get("/", headers=allowed)).status_code == 502  # nothing listens there
    await sandbox.kill()
