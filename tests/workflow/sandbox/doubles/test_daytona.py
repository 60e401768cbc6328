"""The double of Daytona, driven by Daytona's own client."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import httpx
import pytest
import pytest_asyncio

from tests.support.cloud import Fault, rate_limit
from tests.support.daytona_double import DaytonaDouble
from tests.support.waiting import until

daytona = pytest.importorskip("daytona")

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def double() -> AsyncIterator[DaytonaDouble]:
    async with DaytonaDouble() as double:
        yield double


def client_of(double: DaytonaDouble, **options: Any) -> Any:
    return daytona.AsyncDaytona(daytona.DaytonaConfig(**{"api_key": double.key, "api_url": double.api_url, **options}))


@pytest_asyncio.fixture(loop_scope="module")
async def client(double: DaytonaDouble) -> AsyncIterator[Any]:
    async with client_of(double) as client:
        yield client


def wanted(**fields: Any) -> Any:
    return daytona.CreateSandboxFromSnapshotParams(language="python", **fields)


@pytest_asyncio.fixture(loop_scope="module")
async def box(client: Any) -> AsyncIterator[Any]:
    sandbox = await client.create(wanted(env_vars={"GREETING": "hello"}))
    yield sandbox
    await sandbox.delete(wait=True)


async def in_session(box: Any, command: str, session: str = "s", *, wait: bool = False) -> Any:
    return await box.process.execute_session_command(
        session, daytona.SessionExecuteRequest(command=command, run_async=not wait)
    )


async def test_a_command_runs_isolated_with_its_output_merged(box: Any) -> None:
    result = await box.process.exec('echo "$GREETING $HOME $(pwd) $(whoami) $X"; echo err >&2; exit 3', env={"X": "x"})
    assert (result.exit_code, result.result) == (3, "hello /home/daytona /home/daytona daytona x\nerr\n")
    assert (await box.process.exec("cat /etc/shadow 2>&1 || pwd", cwd="/workspace")).result.endswith("/workspace\n")


async def test_a_timeout_is_408_kills_the_group_and_loses_the_output(box: Any) -> None:
    with pytest.raises(daytona.DaytonaProcessExecutionTimeoutError) as caught:
        await box.process.exec("echo partial; sleep 300.5; true", timeout=1)
    assert caught.value.status_code == 408
    assert "partial" not in str(caught.value)
    assert (await box.process.exec("pgrep -fc '[s]leep 300.5'")).result == "0\n"


async def test_a_command_lasts_as_long_as_somebody_holds_its_output(box: Any) -> None:
    assert (await box.process.exec("(sleep 0.7; echo late) &")).result == "late\n"


async def test_a_session_keeps_its_state_and_its_commands(box: Any) -> None:
    await box.process.create_session("s")
    await in_session(box, "cd /tmp; export X=1", wait=True)
    result = await in_session(box, "pwd; echo $X; echo err >&2; (exit 4)", wait=True)
    assert (result.exit_code, result.stdout, result.stderr) == (4, "/tmp\n1\n", "err\n")
    session = await box.process.get_session("s")
    assert [command.exit_code for command in session.commands] == [0, 4]
    assert [each.session_id for each in await box.process.list_sessions()] == ["s"]
    with pytest.raises(daytona.DaytonaConflictError):
        await box.process.create_session("s")


async def test_the_output_of_a_session_command_streams_with_both_outputs_apart(box: Any) -> None:
    await box.process.create_session("s")
    command = await in_session(box, "echo one; echo two >&2; until [ -e ~/go ]; do sleep 0.02; done; printf 'a\\0b'")
    seen: dict[str, str] = {"out": "", "err": ""}

    def into(name: str) -> Callable[[str], None]:
        def note(text: str) -> None:
            seen[name] += text

        return note

    async def follow() -> None:
        await box.process.get_session_command_logs_async("s", command.cmd_id, into("out"), into("err"))

    following = asyncio.create_task(follow())
    await until(lambda: seen == {"out": "one\n", "err": "two\n"})
    assert (await box.process.get_session_command("s", command.cmd_id)).exit_code is None
    await box.fs.upload_file(b"", "go")
    await following
    assert seen["out"] == "one\na\0b"
    assert (await box.process.get_session_command("s", command.cmd_id)).exit_code == 0
    logs = await box.process.get_session_command_logs("s", command.cmd_id)
    assert (logs.stdout, logs.stderr) == ("one\na\0b", "two\n")


async def test_a_command_goes_on_when_nobody_follows_it(box: Any) -> None:
    await box.process.create_session("s")
    command = await in_session(box, "until [ -e ~/go ]; do sleep 0.02; done; echo done")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await box.process.get_session_command_logs_async("s", command.cmd_id, print, print)
    await box.fs.upload_file(b"", "/home/daytona/go")
    seen: list[str] = []
    await box.process.get_session_command_logs_async("s", command.cmd_id, seen.append, seen.append)
    assert "".join(seen) == "done\n"


async def test_a_deleted_session_ends_its_command(box: Any) -> None:
    await box.process.create_session("s")
    await in_session(box, "sleep 300.75")
    await box.process.delete_session("s")
    assert (await box.process.exec("pgrep -fc '[s]leep 300.75'")).result == "0\n"
    with pytest.raises(daytona.DaytonaNotFoundError):
        await box.process.get_session("s")


async def test_an_exit_ends_the_session(box: Any) -> None:
    await box.process.create_session("s")
    assert (await in_session(box, "echo bye; exit 5", wait=True)).exit_code == 5
    with pytest.raises(daytona.DaytonaSessionEndedError):
        await in_session(box, "true")


async def test_files_go_up_and_down_byte_by_byte(box: Any) -> None:
    data = bytes(range(256)) * 4096
    names = ["/workspace/new/folder/blob.bin", "/tmp/ünï cödé", "in-home"]
    await box.fs.upload_files([daytona.FileUpload(source=data, destination=name) for name in names])
    for name in names:
        assert await box.fs.download_file(name) == data
    stream = await box.fs.download_file_stream("in-home")
    assert b"".join([piece async for piece in stream]) == data
    several = await box.fs.download_files([daytona.FileDownloadRequest(source=name) for name in (*names, "/none")])
    assert [each.result == data for each in several] == [True, True, True, False]
    assert several[3].error


async def test_folders_are_made_listed_moved_and_removed(box: Any) -> None:
    await box.fs.create_folder("/workspace/src/deep", "755")
    await box.fs.upload_file(b"print()", "/workspace/src/deep/main.py")
    await box.fs.set_file_permissions("/workspace/src/deep/main.py", mode="755")
    info = await box.fs.get_file_info("/workspace/src/deep/main.py")
    assert (info.size, info.permissions, info.is_dir, info.owner) == (7, "0755", False, "daytona")
    assert [each.name for each in await box.fs.list_files("/workspace/src")] == ["deep"]
    await box.fs.move_files("/workspace/src/deep/main.py", "/workspace/src/main.py")
    assert await box.fs.download_file("/workspace/src/main.py") == b"print()"
    with pytest.raises(daytona.DaytonaBadRequestError):
        await box.fs.delete_file("/workspace/src")
    await box.fs.delete_file("/workspace/src", recursive=True)
    assert await box.fs.list_files("/workspace") == []


async def test_a_missing_file_is_said_to_be_missing(box: Any) -> None:
    for call in (box.fs.download_file("/none"), box.fs.get_file_info("/none"), box.fs.list_files("/none")):
        with pytest.raises(daytona.DaytonaNotFoundError):
            await call


async def test_a_stopped_sandbox_refuses_the_toolbox_and_keeps_its_files(client: Any, box: Any) -> None:
    await box.fs.upload_file(b"kept", "/workspace/kept")
    await box.process.create_session("s")
    await in_session(box, "sleep 300")
    await box.stop()
    assert (await client.get(box.id)).state == "stopped"
    with pytest.raises(daytona.DaytonaBadRequestError, match=r"Is the Sandbox started\?"):
        await box.process.exec("true")
    with pytest.raises(daytona.DaytonaBadRequestError):
        await box.stop()
    await box.start()
    assert await box.fs.download_file("/workspace/kept") == b"kept"
    assert await box.process.list_sessions() == []


async def test_an_archived_sandbox_can_be_started_again(client: Any, box: Any) -> None:
    await box.fs.upload_file(b"kept", "/home/daytona/kept")
    await box.stop()
    await box.archive()

    async with asyncio.timeout(5):
        while (await client.get(box.id)).state != "archived":
            await asyncio.sleep(0.02)
    await box.start()
    assert await box.fs.download_file("kept") == b"kept"


async def test_a_paused_sandbox_goes_on_where_it_was(box: Any) -> None:
    await box.process.create_session("s")
    command = await in_session(box, "until [ -e ~/go ]; do sleep 0.02; done; echo woke")
    await box.pause()
    with pytest.raises(daytona.DaytonaBadRequestError):
        await box.process.exec("true")
    await box.start()
    await box.fs.upload_file(b"", "go")
    seen: list[str] = []
    await box.process.get_session_command_logs_async("s", command.cmd_id, seen.append, seen.append)
    assert "".join(seen) == "woke\n"


async def test_a_deleted_sandbox_is_gone_for_every_call(double: DaytonaDouble, client: Any) -> None:
    sandbox = await client.create(wanted())
    await sandbox.delete(wait=True)
    assert sandbox.id not in double.alive()
    for call in (client.get(sandbox.id), sandbox.start(), sandbox.process.exec("true"), sandbox.delete()):
        with pytest.raises(daytona.DaytonaNotFoundError):
            await call


async def test_sandboxes_are_listed_by_labels_page_by_page(double: DaytonaDouble, client: Any) -> None:
    made = [await client.create(wanted(labels={"owner": "me & you"})) for _ in range(3)]
    await made[0].set_labels({"owner": "another"})
    query = daytona.ListSandboxesQuery(labels={"owner": "me & you"}, limit=1)
    calls = double.called("GET /api/sandbox$")
    found = [sandbox.id async for sandbox in client.list(query)]
    assert sorted(found) == sorted(sandbox.id for sandbox in made[1:])
    assert double.called("GET /api/sandbox$") == calls + 2
    assert double.alive()[made[0].id] == {"owner": "another"}
    for sandbox in made:
        await sandbox.delete(wait=True)


async def test_a_name_is_given_once_and_finds_its_sandbox(client: Any) -> None:
    sandbox = await client.create(wanted(name="only-one"))
    assert (await client.get("only-one")).id == sandbox.id
    with pytest.raises(daytona.DaytonaConflictError):
        await client.create(wanted(name="only-one"))
    await sandbox.delete(wait=True)


async def test_a_fork_has_the_files(box: Any) -> None:
    await box.fs.upload_file(b"a", "/workspace/a")
    fork = await box.fork()
    assert await fork.fs.download_file("/workspace/a") == b"a"
    await fork.delete(wait=True)


async def test_a_change_under_way_refuses_the_next() -> None:
    async with DaytonaDouble(lag=1.5) as double, client_of(double) as client:
        sandbox = await client.create(wanted())
        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {double.key}"}) as http:
            url = f"{double.api_url}/sandbox/{sandbox.id}"
            stopped = await http.post(f"{url}/stop")
            assert stopped.json()["state"] == "stopping"
            assert (await http.post(f"{url}/start")).status_code == 409
        await sandbox.wait_for_sandbox_stop(timeout=30)
        assert double.boxes[sandbox.id].state == "stopped"


async def test_only_calls_keep_a_sandbox_from_stopping() -> None:
    async with DaytonaDouble(minute=4) as double, client_of(double) as client:
        busy = await client.create(wanted(auto_stop_interval=1))
        called = await client.create(wanted(auto_stop_interval=1))
        kept = await client.create(wanted(auto_stop_interval=0))
        await busy.process.create_session("s")
        await in_session(busy, "sleep 300")
        async with asyncio.timeout(30):
            while double.boxes[busy.id].state != "stopped":
                await called.refresh_activity()
                await asyncio.sleep(0.05)
        assert [double.boxes[each.id].state for each in (called, kept)] == ["started", "started"]


async def test_an_ephemeral_sandbox_is_deleted_when_it_stops() -> None:
    async with DaytonaDouble(minute=4) as double, client_of(double) as client:
        sandbox = await client.create(wanted(auto_stop_interval=1, ephemeral=True))
        await until(lambda: sandbox.id not in double.alive())


async def test_a_wrong_key_is_refused(double: DaytonaDouble) -> None:
    async with client_of(double, api_key="dtn_" + "0" * 64) as client:
        with pytest.raises(daytona.DaytonaAuthenticationError):
            await client.create(wanted())


async def test_faults_spoil_as_many_calls_as_they_say(double: DaytonaDouble, client: Any, box: Any) -> None:
    double.faults.append(Fault("POST /api/sandbox$", 500))
    with pytest.raises(daytona.DaytonaInternalServerError):
        await client.create(wanted())
    double.faults.append(rate_limit(f"POST /toolbox/{box.id}/process/execute"))
    with pytest.raises(daytona.DaytonaRateLimitError) as caught:
        await box.process.exec("true")
    assert caught.value.headers["Retry-After"] == "1"
    double.faults.append(Fault("POST /toolbox/.*/process/execute", status=None, done=True))
    with pytest.raises(daytona.DaytonaConnectionError):
        await box.process.exec("echo x >>~/ran")
    assert await box.fs.download_file("ran") == b"x\n"


SERVER = """
import base64, hashlib
from http.server import *
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if key := self.headers["Sec-WebSocket-Key"]:
            accept = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
            self.wfile.write(b"HTTP/1.1 101 Switching\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n")
            self.wfile.write(b"Sec-WebSocket-Accept: " + base64.b64encode(accept) + b"\\r\\n\\r\\n")
            self.wfile.write(b"\\x81\\x05hello\\x88\\x00")
        else:
            self.send_response(200); self.end_headers(); self.wfile.write(self.path.encode())
    def log_message(self, *_): pass
ThreadingHTTPServer(("127.0.0.1", 3000), Handler).serve_forever()
"""


async def serve(box: Any) -> None:
    await box.fs.upload_file(SERVER.encode(), "server.py")
    await box.process.create_session("server")
    await in_session(box, "python3 server.py", "server")
    wait = "until (exec 3<>/dev/tcp/127.0.0.1/3000) 2>/dev/null; do sleep 0.05; done"
    await box.process.exec(wait, timeout=10)


async def test_a_private_port_is_reached_with_the_token(box: Any) -> None:
    await serve(box)
    link = await box.get_preview_link(3000)
    async with httpx.AsyncClient(base_url=link.url) as http:
        assert (await http.get("/")).status_code == 401
        answer = await http.get("/a?b=c", headers={"X-Daytona-Preview-Token": link.token})
        assert (answer.status_code, answer.text) == (200, "/a?b=c")
        other = await box.get_preview_link(3001)
        refused = await http.get(f"{other.url}/", headers={"X-Daytona-Preview-Token": other.token})
        assert refused.status_code == 502
        await box.stop()
        await box.start()
        assert (await http.get("/", headers={"X-Daytona-Preview-Token": link.token})).status_code == 401


async def test_a_signed_link_passes_http_and_websockets_until_it_ends(box: Any) -> None:
    await serve(box)
    link = await box.create_signed_preview_url(3000, expires_in_seconds=60)
    async with aiohttp.ClientSession() as http:
        async with http.get(f"{link.url}/x") as answer:
            assert await answer.text() == "/x"
        async with http.ws_connect(f"{link.url}/socket") as socket:
            assert await socket.receive_str(timeout=5) == "hello"
        await box.expire_signed_preview_url(3000, link.token)
        async with http.get(f"{link.url}/x") as answer:
            assert answer.status == 401
