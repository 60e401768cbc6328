"""envd's process service: a process outlives the connection that began it, and ends with its own timeout."""

import asyncio
import base64
import contextlib
import signal
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from tests.support.e2b_double.box import BOX, Box
from tests.support.e2b_double.connect import RpcError, Stream, as_rpc_error, open_stream, unary, unserved
from tests.support.machines.machine import OUT, MachineError, MachineGone, Running

SERVICE = "/process.Process"
SIGNALS = {"SIGNAL_SIGTERM": signal.SIGTERM, "SIGNAL_SIGKILL": signal.SIGKILL}

Begin = Callable[[Box, Any], Awaitable[Running]]


class Processes:
    def __init__(self) -> None:
        self._deadlines: set[asyncio.Task[None]] = set()

    def routes(self) -> list[web.AbstractRouteDef]:
        return [
            web.post(f"{SERVICE}/Start", self._start),
            web.post(f"{SERVICE}/Connect", self._connect),
            unary(f"{SERVICE}/List", _list),
            unary(f"{SERVICE}/SendSignal", _send_signal),
            unary(f"{SERVICE}/SendInput", _send_input),
            unary(f"{SERVICE}/CloseStdin", _close_stdin),
            unserved(f"{SERVICE}/Update"),
            unserved(f"{SERVICE}/StreamInput"),
        ]

    async def _start(self, request: web.Request) -> web.StreamResponse:
        return await self._serve(request, _spawn, owner=True)

    async def _connect(self, request: web.Request) -> web.StreamResponse:
        return await self._serve(request, _find, owner=False)

    async def _serve(self, request: web.Request, begin: Begin, *, owner: bool) -> web.StreamResponse:
        """`owner`: when the stream's time is over, the process is killed too."""
        box = request[BOX]
        milliseconds = int(request.headers.get("Connect-Timeout-Ms", 0))
        message, stream = await open_stream(request)
        try:
            running = await begin(box, message)
        except (RpcError, MachineError, MachineGone) as error:
            await stream.end(as_rpc_error(error))
            return stream.response
        if owner and milliseconds:
            self._limit(box, running, milliseconds / 1000)
        await _follow_to_the_end(stream, running, milliseconds / 1000 or None)
        return stream.response

    def _limit(self, box: Box, running: Running, seconds: float) -> None:
        """Only the process itself is killed: what it has started goes on."""

        async def kill() -> None:
            await asyncio.sleep(seconds)
            with contextlib.suppress(MachineError, MachineGone):
                await box.machine.signal(running.pid, signal.SIGKILL, group=False)

        task = asyncio.create_task(kill())
        self._deadlines.add(task)
        task.add_done_callback(self._deadlines.discard)


async def _follow_to_the_end(stream: Stream, running: Running, seconds: float | None) -> None:
    """Or until the client is gone: the process goes on."""
    with contextlib.suppress(ConnectionError):
        await _follow(stream, running, seconds)


async def _follow(stream: Stream, running: Running, seconds: float | None) -> None:
    keeping = asyncio.create_task(stream.keep_alive())
    error = None
    try:
        async with asyncio.timeout(seconds):
            await stream.event(start={"pid": running.pid})
            async for kind, data in running.output():
                name = "stdout" if kind == OUT else "stderr"
                await stream.event(data={name: base64.b64encode(data).decode()})
        await stream.event(end=_end(running.code or 0))
    except TimeoutError:
        error = RpcError("deadline_exceeded", "context deadline exceeded")
    except MachineGone as gone:
        error = as_rpc_error(gone)
    finally:
        keeping.cancel()
        running.close()
    await stream.end(error)


def _end(code: int) -> dict[str, Any]:
    if code < 0:
        text = f"signal: {signal.strsignal(-code) or -code}".lower()
        return {"exitCode": -1, "exited": False, "status": text, "error": text}
    status = f"exit status {code}"
    return {"exitCode": code, "exited": True, "status": status, **({"error": status} if code else {})}


async def _spawn(box: Box, message: Any) -> Running:
    if "pty" in message:
        raise RpcError("unimplemented", "pseudo-terminals are not served by the double")
    process = message["process"]
    cwd = box.machine.absolute(process.get("cwd", ""))
    args = [process["cmd"], *process.get("args", [])]
    env = {**box.env, **process.get("envs", {})}
    try:
        await box.machine.info(cwd)
    except MachineError as error:
        raise RpcError("invalid_argument", f"cwd '{cwd}' does not exist") from error
    stdin = message.get("stdin", True)
    return await box.machine.spawn(args, env=env, cwd=cwd, stdin=stdin, session=False, tag=message.get("tag"))


async def _find(box: Box, message: Any) -> Running:
    return await box.machine.follow(await _pid(box, message))


async def _pid(box: Box, message: Any) -> int:
    selector = message["process"]
    if "pid" in selector:
        return int(selector["pid"])
    for process in (await box.machine.ask("processes"))["processes"]:
        if process["tag"] == selector["tag"]:
            return int(process["pid"])
    raise RpcError("not_found", f"process with tag {selector['tag']} not found")


async def _list(box: Box, _: Any) -> Any:
    return {"processes": [_described(each) for each in (await box.machine.ask("processes"))["processes"]]}


def _described(process: dict[str, Any]) -> dict[str, Any]:
    cmd, *args = process["args"]
    config = {"cmd": cmd, "args": args, "envs": process["env"], "cwd": process["cwd"]}
    tag = {"tag": process["tag"]} if process["tag"] else {}
    return {"pid": process["pid"], "config": config, **tag}


async def _send_signal(box: Box, message: Any) -> Any:
    await box.machine.signal(await _pid(box, message), SIGNALS[message["signal"]], group=False)
    return {}


async def _send_input(box: Box, message: Any) -> Any:
    await box.machine.feed(await _pid(box, message), base64.b64decode(message["input"]["stdin"]))
    return {}


async def _close_stdin(box: Box, message: Any) -> Any:
    await box.machine.feed(await _pid(box, message), b"", close=True)
    return {}
