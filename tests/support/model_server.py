"""A scripted OpenAI-compatible model server over real HTTP, for tests: `python -m tests.support.model_server --port N`.

POST /v1/chat/completions (streamed or not), POST /v1/messages (Anthropic's, streamed), GET /v1/models, GET /api/tags
(Ollama's list), GET /stats.

A test in the same process queues exact replies with `server.then(...)`. Where none is queued, markers in the last user
message decide, so that a process that knows nothing of this file can be led through a task by its text:

    [[tool:NAME {"json": "arguments"} xN]]  N turns that each call NAME, then the answer; several: in their order
    [[tokens:K]]                            the answer has K tokens; token i is `t00042 `, so loss and doubling show
    [[roles]]                               the answer names the role of each message that the server was sent
    [[delay:MS]]                            milliseconds between two tokens
    [[error:STATUS xN]]                     the first N requests with this text fail with STATUS (no xN: all of them)

Turns already done = `tool` messages after the last user message, so that a resumed conversation goes on where it was.
"""

import argparse
import asyncio
import http.client
import itertools
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.support import anthropic_shape

JSON = dict[str, Any]

TOOL = re.compile(r"\[\[tool:([\w.-]+)\s*(\{.*?\})?\s*(?:x(\d+))?\]\]", re.DOTALL)
TOKENS = re.compile(r"\[\[tokens:(\d+)\]\]")
ROLES = "[[roles]]"
DELAY = re.compile(r"\[\[delay:([\d.]+)\]\]")
ERROR = re.compile(r"\[\[error:(\d{3})\s*(?:x(\d+))?\]\]")
DEFAULT_TOKENS = 8


@dataclass(frozen=True)
class Call:
    """A tool call; its arguments are sent in as many pieces as `fragments` says."""

    name: str
    arguments: str = "{}"
    id: str | None = None
    fragments: int = 2


@dataclass(frozen=True)
class Turn:
    """An answer. `end`: how the stream ends.

    stop: as it should. no_finish: a clean end of the body without finish reason or [DONE]. cut: the connection is
    broken off. hang: silence until the client goes away. malformed: a chunk that is not JSON. overloaded: an error
    within the stream. `usage` is in the words of the API that is asked.
    """

    text: Sequence[str] = ()
    thinking: Sequence[str] = ()
    calls: Sequence[Call] = ()
    finish: str | None = None
    usage: JSON | None = None
    delay: float = 0
    end: Literal["stop", "no_finish", "cut", "hang", "malformed", "overloaded"] = "stop"


@dataclass(frozen=True)
class Failure:
    """An HTTP error in OpenAI's shape."""

    status: int
    message: str = "scripted failure"
    code: str | None = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Hang:
    """The request is taken and never answered."""


Reply = Turn | Failure | Hang


@dataclass(frozen=True)
class Request:
    path: str
    headers: dict[str, str]
    body: JSON


class ModelServer:
    """`requests` holds every chat request; `aborted` counts those whose client left before the end."""

    def __init__(self, ollama_models: Sequence[str] = ()) -> None:
        self.requests: list[Request] = []
        self.aborted = 0
        self.port = 0
        self._ollama_models = ollama_models
        self._queue: list[Reply] = []
        self._failed: Counter[str] = Counter()
        self._connections: set[asyncio.Task[None]] = set()
        self._ids = itertools.count(1)

    @property
    def url(self) -> str:
        """The root; the OpenAI-compatible base URL is `api_url`."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def api_url(self) -> str:
        return f"{self.url}/v1"

    def then(self, *replies: Reply) -> None:
        """Queue the next replies, in order, before what markers say."""
        self._queue.extend(replies)

    async def until(self, condition: Callable[[], bool], seconds: float = 5) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.002)

    async def start(self, port: int = 0) -> asyncio.Server:
        server = await asyncio.start_server(self._accept, "127.0.0.1", port, limit=2**24, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        return server

    def disconnect(self) -> None:
        """Break off every open connection."""
        for connection in self._connections:
            connection.cancel()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (request := await _read_request(reader)) is not None:
                await self._answer(request, reader, writer)
                await writer.drain()
        except (ConnectionError, _Cut):
            pass
        finally:
            writer.close()

    async def _answer(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if request.path.endswith("/chat/completions"):
            self.requests.append(request)
            await self._chat(request.body, reader, writer)
        elif request.path.endswith("/messages"):
            self.requests.append(request)
            await self._messages(request.body, reader, writer)
        elif request.path.endswith("/models"):
            writer.write(_json_response({"object": "list", "data": [{"id": "scripted", "object": "model"}]}))
        elif request.path == "/api/tags":
            writer.write(_json_response({"models": [{"name": name} for name in self._ollama_models]}))
        elif request.path == "/stats":
            writer.write(_json_response({"requests": len(self.requests), "aborted": self.aborted}))
        else:
            writer.write(_json_response({"error": {"message": f"no such path: {request.path}"}}, 404))

    async def _chat(self, body: JSON, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reply = self._queue.pop(0) if self._queue else self._by_markers(body["messages"])
        if isinstance(reply, Failure):
            error = {"message": reply.message, "type": "scripted_error", "code": reply.code}
            writer.write(_json_response({"error": error}, reply.status, reply.headers))
        elif isinstance(reply, Hang):
            await self._client_leaves(reader)
        elif body.get("stream"):
            await self._stream(reply, body, reader, writer)
        else:
            writer.write(_json_response(_completion(self._number(reply), _usage(reply, body))))

    async def _messages(self, body: JSON, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reply = self._queue.pop(0) if self._queue else self._by_markers(anthropic_shape.as_openai(body["messages"]))
        if isinstance(reply, Failure):
            content = anthropic_shape.error(reply.message, reply.code or "api_error")
            writer.write(_json_response(content, reply.status, reply.headers))
        elif isinstance(reply, Hang):
            await self._client_leaves(reader)
        else:
            await self._message(self._number(reply), reader, writer)

    async def _message(self, turn: Turn, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        calls = [{"id": call.id, "name": call.name, "arguments": call.arguments} for call in turn.calls]
        usage = turn.usage or {"input_tokens": 10, "output_tokens": len(turn.text)}
        writer.write(SSE_HEAD)
        for frame in anthropic_shape.frames(list(turn.text), list(turn.thinking), calls, usage):
            writer.write(_http_chunk(frame))
        if turn.end in ("cut", "hang"):
            await self._break_off(turn, reader, writer)
        if turn.end == "overloaded":
            writer.write(_http_chunk(anthropic_shape.frame(anthropic_shape.error("Overloaded", "overloaded_error"))))
        elif turn.end != "no_finish":
            writer.write(_http_chunk(anthropic_shape.end(_finish(turn), usage)))
        writer.write(b"0\r\n\r\n")

    def _by_markers(self, messages: list[JSON]) -> Reply:
        text, done = _last_user_text(messages)
        if error := ERROR.search(text):
            self._failed[text] += 1
            if error[2] is None or self._failed[text] <= int(error[2]):
                return Failure(int(error[1]), f"scripted failure {self._failed[text]}")
        calls = [Call(m[1], m[2] or "{}") for m in TOOL.finditer(text) for _ in range(int(m[3] or 1))]
        if done < len(calls):
            return Turn(calls=[calls[done]])
        if ROLES in text:
            return Turn(text=[" ".join(message["role"] for message in messages)])
        tokens = int(found[1]) if (found := TOKENS.search(text)) else DEFAULT_TOKENS
        delay = float(found[1]) / 1000 if (found := DELAY.search(text)) else 0
        return Turn(text=[f"t{i:05d} " for i in range(tokens)], delay=delay)

    def _number(self, turn: Turn) -> Turn:
        """The turn with an id for each call that has none."""
        calls = [Call(c.name, c.arguments, c.id or f"call_{next(self._ids)}", c.fragments) for c in turn.calls]
        return Turn(turn.text, turn.thinking, calls, turn.finish, turn.usage, turn.delay, turn.end)

    async def _stream(self, turn: Turn, body: JSON, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE_HEAD)
        for delta in _deltas(self._number(turn)):
            writer.write(_chunk(delta))
            if turn.delay:
                await writer.drain()
                await asyncio.sleep(turn.delay)
            if reader.at_eof():
                self.aborted += 1
                raise _Cut
        await self._end_stream(turn, body, reader, writer)

    async def _end_stream(
        self, turn: Turn, body: JSON, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if turn.end in ("cut", "hang"):
            await self._break_off(turn, reader, writer)
        if turn.end == "malformed":
            writer.write(_http_chunk(b"data: {this is not JSON\n\n"))
        if turn.end == "overloaded":
            error = {"message": "Overloaded", "type": "server_error", "code": 503}
            writer.write(_http_chunk(b"data: " + json.dumps({"error": error}).encode() + b"\n\n"))
        elif turn.end != "no_finish":
            writer.write(_chunk({}, finish=_finish(turn)))
            if (body.get("stream_options") or {}).get("include_usage"):
                writer.write(_chunk(None, usage=_usage(turn, body)))
            writer.write(_http_chunk(b"data: [DONE]\n\n"))
        writer.write(b"0\r\n\r\n")

    async def _break_off(self, turn: Turn, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await writer.drain()
        if turn.end == "cut":
            raise _Cut
        await self._client_leaves(reader)

    async def _client_leaves(self, reader: asyncio.StreamReader) -> None:
        await reader.read(1)
        self.aborted += 1
        raise _Cut


class _Cut(Exception):
    """Break the connection off."""


SSE_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


async def _read_request(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(first.split()[1].partition("?")[0], headers, json.loads(body) if body else {})


def _last_user_text(messages: list[JSON]) -> tuple[str, int]:
    """The last user message's text, and how many tool messages follow it."""
    done = 0
    for message in reversed(messages):
        if message["role"] == "user":
            content = message["content"]
            return content if isinstance(content, str) else "".join(p.get("text", "") for p in content), done
        done += message["role"] == "tool"
    return "", done


def _deltas(turn: Turn) -> list[JSON]:
    deltas: list[JSON] = [{"role": "assistant", "content": ""}]
    deltas += [{"reasoning_content": piece} for piece in turn.thinking]
    deltas += [{"content": piece} for piece in turn.text]
    for index, call in enumerate(turn.calls):
        start = {"index": index, "id": call.id, "type": "function", "function": {"name": call.name, "arguments": ""}}
        deltas.append({"tool_calls": [start]})
        size = -(-len(call.arguments) // call.fragments) or 1
        for at in range(0, len(call.arguments), size):
            piece = {"arguments": call.arguments[at : at + size]}
            deltas.append({"tool_calls": [{"index": index, "function": piece}]})
    return deltas


def _usage(turn: Turn, body: JSON) -> JSON:
    if turn.usage is not None:
        return turn.usage
    read = len(json.dumps(body["messages"])) // 4
    written = len(turn.text) + 10 * len(turn.calls)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def _completion(turn: Turn, usage: JSON) -> JSON:
    message: JSON = {"role": "assistant", "content": "".join(turn.text)}
    if turn.calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in turn.calls
        ]
    choice = {"index": 0, "message": message, "finish_reason": _finish(turn)}
    return {"id": "chatcmpl-1", "object": "chat.completion", "model": "scripted", "choices": [choice], "usage": usage}


def _finish(turn: Turn) -> str:
    return turn.finish or ("tool_calls" if turn.calls else "stop")


def _chunk(delta: JSON | None, finish: str | None = None, usage: JSON | None = None) -> bytes:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    chunk: JSON = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000, "model": "scripted"}
    chunk["choices"] = choices
    if usage is not None:
        chunk["usage"] = usage
    return _http_chunk(b"data: " + json.dumps(chunk).encode() + b"\n\n")


def _http_chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _json_response(content: JSON, status: int = 200, headers: dict[str, str] | None = None) -> bytes:
    body = json.dumps(content).encode()
    phrase = http.client.responses.get(status, "Overloaded")  # 529 is Anthropic's own
    lines = [f"HTTP/1.1 {status} {phrase}", "content-type: application/json"]
    lines += [f"content-length: {len(body)}", *(f"{name}: {value}" for name, value in (headers or {}).items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@asynccontextmanager
async def model_server(ollama_models: Sequence[str] = ()) -> AsyncIterator[ModelServer]:
    """A running server on a free port; connections still open at the end are broken off."""
    server = ModelServer(ollama_models)
    listener = await server.start()
    try:
        yield server
    finally:
        listener.close()
        server.disconnect()


async def _main(port: int) -> None:
    async with await ModelServer().start(port) as listener:
        await listener.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    asyncio.run(_main(parser.parse_args().port))
