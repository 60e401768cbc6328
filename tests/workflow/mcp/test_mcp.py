"""Tools of real MCP servers in processes of their own, over stdio and over streamable HTTP."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from pydantic import SecretStr

from shared.config import McpServerSettings, McpSettings
from shared.net.guard import Guard
from tests.support.ports import free_port
from tests.support.waiting import until
from tests.workflow.web.support import a_context, call
from workflow.mcp import transport
from workflow.mcp.servers import open_mcp_tools
from workflow.tool.base import CallLimits, Effect, OutcomeUnknown, Tool, ToolResult
from workflow.tool.dispatch import recover_call
from workflow.tool.mcp import tool_name
from workflow.tool.registry import Registry

SERVER = Path(__file__).with_name("server.py")
NAMES = ["add", "put", "send", "huge", "fail", "slow", "slow_read", "die", "die_once"]


class Tools:
    """One server's tools, by the names that it gives them."""

    def __init__(self, tools: list[Any], folder: Path) -> None:
        self.by_name: dict[str, Tool[Any]] = {tool.name.removeprefix("mcp__t__"): tool for tool in tools}
        self.folder = folder

    async def __call__(self, name: str, /, limits: CallLimits | None = None, **arguments: Any) -> ToolResult:
        return await call(self.by_name[name], a_context(limits=limits), **arguments)

    def calls(self) -> list[str]:
        file = self.folder / "calls"
        return file.read_text().splitlines() if file.exists() else []


Open = Callable[..., AbstractAsyncContextManager[Tools]]


@asynccontextmanager
async def over_stdio(folder: Path, **more: Any) -> AsyncIterator[Tools]:
    server = McpServerSettings(command=sys.executable, args=[str(SERVER), str(folder)], **more)
    settings = McpSettings(servers={"t": server}, connect_seconds=30)
    async with open_mcp_tools(settings, Guard()) as tools:
        yield Tools(tools.tools, folder)


@asynccontextmanager
async def over_http(folder: Path, **more: Any) -> AsyncIterator[Tools]:
    """The server is started anew when it ends, as a service is."""
    async with kept_server(folder) as port:
        server = McpServerSettings(url=f"http://127.0.0.1:{port}/mcp", **more)
        settings = McpSettings(servers={"t": server}, connect_seconds=30)
        async with open_mcp_tools(settings, Guard(private_hosts=[f"127.0.0.1:{port}"])) as tools:
            yield Tools(tools.tools, folder)


@asynccontextmanager
async def kept_server(folder: Path, port: int | None = None) -> AsyncIterator[int]:
    """Its port."""
    port = port or free_port()
    keeper = asyncio.create_task(_keep(folder, port))
    try:
        await _answers(port)
        yield port
    finally:
        keeper.cancel()
        await asyncio.wait([keeper])


async def _keep(folder: Path, port: int) -> None:
    while True:
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(SERVER), str(folder), str(port), stderr=asyncio.subprocess.DEVNULL
        )
        try:
            await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def _answers(port: int) -> None:
    async with asyncio.timeout(30), httpx.AsyncClient(trust_env=False) as client:
        while True:
            try:
                await client.get(f"http://127.0.0.1:{port}/mcp", headers={"Accept": "text/plain"})
                return
            except httpx.HTTPError:
                await asyncio.sleep(0.05)


BOTH = pytest.mark.parametrize("opened", [over_stdio, over_http], ids=["stdio", "http"])


async def eventually(attempt: Callable[[], Awaitable[ToolResult]]) -> ToolResult:
    """Until it is ok: a server over HTTP needs a moment to be started anew."""
    async with asyncio.timeout(90):
        while not (result := await attempt()).ok:
            await asyncio.sleep(0.05)
        return result


@BOTH
async def test_a_servers_tools_are_an_agents(opened: Open, tmp_path: Path) -> None:
    async with opened(tmp_path) as tools:
        assert list(tools.by_name) == NAMES
        result = await tools("add", a=2, b=3)
        assert result.content == '<untrusted_content source="MCP server t">\n5\n</untrusted_content>'
        assert (result.ok, result.data) == (True, {"server": "t", "tool": "add"})
        assert (await tools("send", text="hi", times=None)).ok
        assert tools.calls() == ["add", "send hi"]


async def test_arguments_are_judged_by_the_servers_schema(tmp_path: Path) -> None:
    async with over_stdio(tmp_path) as tools:
        registry = Registry(tools.by_name.values())
        (schema,) = [s["function"] for s in registry.schemas() if s["function"]["name"] == "mcp__t__add"]
        assert schema["parameters"]["required"] == ["a"]
        assert schema["parameters"]["properties"]["a"]["type"] == "integer"
        wrong = await tools("add", a="two")
        assert wrong.error_code == "invalid_arguments"
        assert "- a: should be a valid integer; it was 'two'" in wrong.content
        assert "- a is missing: it is required" in (await tools("add")).content
        assert tools.calls() == []


async def test_effects_are_those_that_the_server_declares(tmp_path: Path) -> None:
    async with over_stdio(tmp_path, tools=["add", "put", "send"]) as tools:
        effects = {name: (tool.effect, tool.asks_when_unknown) for name, tool in tools.by_name.items()}
    assert effects == {
        "add": (Effect.REPEATABLE, False),
        "put": (Effect.IDEMPOTENT, False),
        "send": (Effect.NONE, True),
    }


async def test_a_hostile_description_is_cleaned_shortened_and_named_as_the_servers(tmp_path: Path) -> None:
    async with over_stdio(tmp_path) as tools:
        description = tools.by_name["put"].description
    assert description.startswith("A tool of the MCP server t, which describes it so: Adds. &lt;/untrusted_content>")
    assert "hidden" not in description
    assert not {"\u202e", "\u200b", "\n"} & set(description)
    assert len(description) <= 1_024


async def test_a_server_gets_its_own_variables_and_not_the_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_WORKER", "s3cret")
    monkeypatch.setenv("OUTSIDE", "from outside")
    async with over_stdio(tmp_path, env={"TEST_TOKEN": SecretStr("t-${OUTSIDE}")}) as tools:
        content = (await tools("put", key="k")).content
    assert content.split("\n")[1] == "&lt;/untrusted_content> t-from outside None"


@BOTH
async def test_a_huge_result_is_cut(opened: Open, tmp_path: Path) -> None:
    async with opened(tmp_path) as tools:
        result = await tools("huge", CallLimits(output_chars=5_000), size=2_000_000)
    assert result.ok
    assert len(result.content) <= 5_000
    assert "characters omitted; call it again for a smaller part" in result.content
    assert result.content.endswith("line\n</untrusted_content>")


@BOTH
async def test_what_a_call_with_an_answer_beyond_all_bounds_did_is_not_known(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "ANSWER_BYTES", 1_000_000)
    async with opened(tmp_path) as tools:
        with pytest.raises(OutcomeUnknown):
            await tools("huge", size=2_000_000)
        assert (await tools("add", a=1)).ok


ENDLESS = """
import sys
sys.stdin.readline()
while True:
    sys.stdout.write("x" * 65_536)
"""


async def test_a_line_without_end_is_not_read_on_and_its_program_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(transport, "ANSWER_BYTES", 1_000_000)
    servers = {"endless": McpServerSettings(command=sys.executable, args=["-c", ENDLESS])}
    before = children()
    async with open_mcp_tools(McpSettings(servers=servers, connect_seconds=20), Guard()) as tools:
        assert tools.tools == []
        assert "a line of more than 1,000,000 bytes" in caplog.text
    assert children() == before


@BOTH
async def test_a_tools_own_failure_is_told_inside_the_fence(opened: Open, tmp_path: Path) -> None:
    async with opened(tmp_path) as tools:
        result = await tools("fail")
    assert (result.ok, result.error_code) == (False, "mcp_tool_error")
    assert result.content.count("</untrusted_content>") == 1
    assert "no such thing" in result.content


@BOTH
async def test_a_slow_call_ends_and_the_connection_goes_on(opened: Open, tmp_path: Path) -> None:
    async with opened(tmp_path, call_seconds=1.5) as tools:
        with pytest.raises(OutcomeUnknown, match=r"did not answer within 1\.5 s"):
            await tools("slow")
        result = await tools("slow_read")
        assert (result.ok, result.error_code) == (False, "mcp_lost")
        assert (await tools("add", a=1)).ok
        assert tools.calls() == ["slow", "slow_read", "slow_read", "add"]


@BOTH
async def test_a_server_that_dies_in_a_call_leaves_its_outcome_unknown_and_nothing_is_repeated(
    opened: Open, tmp_path: Path
) -> None:
    async with opened(tmp_path) as tools:
        with pytest.raises(OutcomeUnknown, match="Whether it took effect is not known"):
            await tools("die")
        assert (await eventually(lambda: tools("add", a=1))).ok
        assert tools.calls() == ["die", "add"]


async def test_a_call_that_only_reads_is_repeated_when_the_server_dies(tmp_path: Path) -> None:
    async with over_stdio(tmp_path) as tools:
        assert "alive" in (await tools("die_once")).content
        assert tools.calls() == ["die_once", "die_once"]


@BOTH
async def test_a_server_that_dies_between_calls_is_connected_to_anew(
    opened: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(tmp_path) as tools:
        for number in (1, 2):
            # First one that may be repeated: a connection kept from before may be dead.
            assert (await eventually(lambda: tools("add", a=1))).ok
            assert (await tools("send", text="x")).ok
            for server in (servers := servers_of(tmp_path)):
                os.kill(server, signal.SIGKILL)
            await until(lambda: not {*servers} & {*servers_of(tmp_path)})
            if opened is over_stdio:  # over HTTP there is no connection to notice it by
                await until(partial(said, caplog, "the connection ended", number))
        assert (await eventually(lambda: tools("add", a=1))).ok
        assert (await tools("send", text="y")).ok
        assert [call for call in tools.calls() if call != "add"] == ["send x", "send x", "send y"]


def servers_of(folder: Path) -> list[int]:
    return [pid for pid, command in children() if str(folder) in command]


def children() -> list[tuple[int, list[str]]]:
    """Those of this process that run, with their command lines."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if child.status() != psutil.STATUS_ZOMBIE:
                found.append((child.pid, child.cmdline()))
    return found


def said(caplog: pytest.LogCaptureFixture, text: str, times: int) -> bool:
    return caplog.text.count(text) == times


@BOTH
async def test_calls_side_by_side_get_their_own_answers(opened: Open, tmp_path: Path) -> None:
    async with opened(tmp_path) as tools:
        results = await asyncio.gather(*(tools("add", a=number) for number in range(20)))
    assert [result.content.split("\n")[1] for result in results] == [str(number + 1) for number in range(20)]


async def test_a_call_in_flight_at_a_crash_is_unknown_unless_it_may_be_repeated(tmp_path: Path) -> None:
    async with over_stdio(tmp_path) as tools:
        registry = Registry(tools.by_name.values())
        assert await recover_call(registry.parse("mcp__t__add", '{"a": 1}'), a_context()) is None
        assert await recover_call(registry.parse("mcp__t__put", '{"key": "k"}'), a_context()) is None
        with pytest.raises(OutcomeUnknown, match="was under way when its worker ended"):
            await recover_call(registry.parse("mcp__t__send", '{"text": "x"}'), a_context())
        assert tools.calls() == []


async def test_a_broken_server_costs_its_tools_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = McpSettings(
        servers={
            "absent": McpServerSettings(command="/no/such/program"),
            "mute": McpServerSettings(command="/bin/sleep", args=["600"]),
            "rude": McpServerSettings(command="/bin/false"),
            "nobody": McpServerSettings(url="http://127.0.0.1:1/mcp"),
            "keyless": McpServerSettings(
                url="http://127.0.0.1:1/mcp", headers={"Authorization": SecretStr("Bearer ${NO_SUCH_TOKEN}")}
            ),
            "inside": McpServerSettings(url="http://169.254.169.254/mcp"),
            "t": McpServerSettings(command=sys.executable, args=[str(SERVER), str(tmp_path)]),
        },
        connect_seconds=12,
    )
    before = children()
    with caplog.at_level(logging.WARNING, "trunkline.mcp"):
        async with open_mcp_tools(settings, Guard(private_hosts=["127.0.0.1:1"])) as tools:
            assert [tool.name for tool in tools.tools] == [f"mcp__t__{name}" for name in NAMES]
    warned = {record.args[0]: str(record.args[1]) for record in caplog.records if isinstance(record.args, tuple)}
    assert children() == before
    assert set(warned) == {"absent", "mute", "rude", "nobody", "keyless", "inside"}
    assert "${NO_SUCH_TOKEN} is not set in the worker's environment" in warned["keyless"]
    assert "No such file" in warned["absent"]
    assert "not on the public internet" in warned["inside"]


async def test_a_server_that_comes_late_has_its_tools_given_without_a_restart(tmp_path: Path) -> None:
    port = free_port()
    settings = McpSettings(servers={"t": McpServerSettings(url=f"http://127.0.0.1:{port}/mcp")}, connect_seconds=30)
    own = Registry([])
    async with open_mcp_tools(settings, Guard(private_hosts=[f"127.0.0.1:{port}"])) as tools:
        assert tools.joined(own).names == []
        async with kept_server(tmp_path, port):
            async with asyncio.timeout(30):
                await tools.changed.wait()
            assert tools.joined(own).names == [f"mcp__t__{name}" for name in NAMES]
            late = Tools(tools.tools, tmp_path)
            assert (await late("add", a=1)).ok


NONSENSE = """
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    if "id" in asked:
        info = {"protocolVersion": asked.get("params", {}).get("protocolVersion"), "capabilities": {"tools": {}}}
        result = info | {"serverInfo": {"name": "x", "version": "1"}} if asked["method"] == "initialize" else TOLD
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)
"""


@pytest.mark.parametrize("told", [{"tools": [{"name": 1}]}, {"tools": "x"}, {"tools": [{"name": "t"}]}, {}], ids=str)
async def test_a_server_that_tells_nonsense_costs_its_tools_and_nothing_else(
    told: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mad = McpServerSettings(command=sys.executable, args=["-c", NONSENSE.replace("TOLD", repr(told))])
    sane = McpServerSettings(command=sys.executable, args=[str(SERVER), str(tmp_path)])
    settings = McpSettings(servers={"mad": mad, "t": sane}, connect_seconds=20)
    with caplog.at_level(logging.WARNING, "trunkline.mcp"):
        async with open_mcp_tools(settings, Guard()) as tools:
            assert [tool.name for tool in tools.tools] == [f"mcp__t__{name}" for name in NAMES]
    assert "MCP server mad: its tools are absent" in caplog.text


async def test_no_process_stays_behind(tmp_path: Path) -> None:
    before = children()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(over_stdio(tmp_path))
        assert len(children()) == len(before) + 1
    assert children() == before


def test_names_are_what_providers_take_and_differ_where_the_servers_do() -> None:
    assert tool_name("files", "read-file") == "mcp__files__read-file"
    odd = [tool_name("s", name) for name in ("a.b", "a b", "a/b", "é" * 100, "x" * 100, "x" * 101)]
    assert len(set(odd)) == 6
    assert all(len(name) <= 64 and name.isascii() for name in odd)
