"""The toolbox's processes: single commands and sessions."""

import asyncio
import contextlib
import signal
from typing import Any

from aiohttp import web

from tests.support.daytona_double.box import BOX, Box
from tests.support.daytona_double.problems import DAEMON, refusal
from tests.support.daytona_double.sessions import Command, Session
from tests.support.machines.machine import ERR, OUT, MachineError, Running

BASE = "/toolbox/{box}"
PREFIXES = {OUT: b"\x01\x01\x01", ERR: b"\x02\x02\x02"}


class Toolbox:
    def routes(self) -> list[web.AbstractRouteDef]:
        session = f"{BASE}/process/session"
        command = f"{session}/{{session}}/command/{{command}}"
        return [
            web.get(f"{BASE}/user-home-dir", _home),
            web.get(f"{BASE}/work-dir", _home),
            web.post(f"{BASE}/process/execute", _execute),
            web.post(session, _create_session),
            web.get(session, _list_sessions),
            web.get(f"{session}/{{session}}", _get_session),
            web.delete(f"{session}/{{session}}", _delete_session),
            web.post(f"{session}/{{session}}/exec", _execute_in_session),
            web.get(command, _get_command),
            web.get(f"{command}/logs", _logs),
        ]


async def _home(request: web.Request) -> web.Response:
    return web.json_response({"dir": request[BOX].running.home})


async def _execute(request: web.Request) -> web.Response:
    """Waits until all output is closed. A timeout loses what was written so far, as the service's does."""
    box, asked = request[BOX], await request.json()
    cwd = box.running.absolute(asked.get("cwd") or "")
    env = {**box.env, **(asked.get("envs") or {})}
    try:
        running = await box.running.spawn(
            ["/bin/bash", "-c", asked["command"]], env=env, cwd=cwd, split=False, drain_seconds=None
        )
    except MachineError as error:
        raise refusal(400, str(error), "BAD_REQUEST", DAEMON) from error
    try:
        async with asyncio.timeout(asked.get("timeout") or None):
            output = b"".join([data async for _, data in running.output()])
    except TimeoutError as error:
        await _kill(box, running)
        message = "command execution timeout"
        raise refusal(408, message, "PROCESS_EXECUTION_TIMEOUT", DAEMON) from error
    code = running.code or 0
    exit_code = code if code >= 0 else -1
    return web.json_response({"exitCode": exit_code, "result": output.decode(errors="replace")})


async def _kill(box: Box, running: Running) -> None:
    running.close()
    with contextlib.suppress(MachineError):
        await box.running.signal(running.pid, signal.SIGKILL, group=True)


async def _create_session(request: web.Request) -> web.Response:
    box, session_id = request[BOX], (await request.json())["sessionId"]
    if session_id in box.sessions.all:
        raise refusal(409, "session already exists", "CONFLICT", DAEMON)
    await box.sessions.create(session_id, box.running, box.env)
    return web.Response(status=201)


async def _list_sessions(request: web.Request) -> web.Response:
    return web.json_response([_session_dto(*item) for item in request[BOX].sessions.all.items()])


async def _get_session(request: web.Request) -> web.Response:
    return web.json_response(_session_dto(request.match_info["session"], _session(request)))


async def _delete_session(request: web.Request) -> web.Response:
    _session(request)
    await request[BOX].sessions.delete(request.match_info["session"])
    return web.Response(status=204)


async def _execute_in_session(request: web.Request) -> web.Response:
    session, asked = _session(request), await request.json()
    if session.ended:
        raise refusal(410, "session has ended", "SESSION_ENDED", DAEMON)
    command = await session.execute(asked["command"])
    if asked.get("runAsync") or asked.get("async"):
        return web.json_response({"cmdId": command.id}, status=202)
    await command.wait()
    return web.json_response({"cmdId": command.id, "exitCode": command.exit_code, **_output(command)})


async def _get_command(request: web.Request) -> web.Response:
    return web.json_response(_command_dto(_command(request)))


async def _logs(request: web.Request) -> web.StreamResponse:
    command = _command(request)
    if request.query.get("follow") != "true":
        return web.json_response(_output(command))
    stream = web.WebSocketResponse()
    await stream.prepare(request)
    async for kind, data in command.follow():
        await stream.send_bytes(PREFIXES[kind] + data)
    await stream.close()
    return stream


def _output(command: Command) -> dict[str, str]:
    return {"output": command.output(), "stdout": command.output(OUT), "stderr": command.output(ERR)}


def _session(request: web.Request) -> Session:
    session_id = request.match_info["session"]
    if session_id not in request[BOX].sessions.all:
        raise refusal(404, "session not found", "NOT_FOUND", DAEMON)
    return request[BOX].sessions.all[session_id]


def _command(request: web.Request) -> Command:
    commands = _session(request).commands
    if request.match_info["command"] not in commands:
        raise refusal(404, "command not found", "NOT_FOUND", DAEMON)
    return commands[request.match_info["command"]]


def _session_dto(session_id: str, session: Session) -> dict[str, Any]:
    return {"sessionId": session_id, "commands": [_command_dto(each) for each in session.commands.values()]}


def _command_dto(command: Command) -> dict[str, Any]:
    code = {} if command.exit_code is None else {"exitCode": command.exit_code}
    return {"id": command.id, "command": command.text, **code}
