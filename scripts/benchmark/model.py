"""A scripted model that costs next to nothing: python -m scripts.benchmark.model PORT

POST /v1/chat/completions, streamed. `[[tool:NAME {...}]]` in the last user message asks for one call of the tool, and
after its result (or without it) the answer has `[[tokens:K]]` tokens, `t00000 t00001 ...`: loss and doubling show.
"""

import asyncio
import itertools
import re
import sys
from functools import cache
from typing import Any, cast

import httptools
import orjson
import uvloop

JSON = dict[str, Any]

TOOL = re.compile(r"\[\[tool:(\w+) (\{.*?\})\]\]")
TOKENS = re.compile(r"\[\[tokens:(\d+)\]\]")
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
DONE = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
USAGE = {"prompt_tokens": 100, "completion_tokens": 64, "total_tokens": 164}

numbers = itertools.count(1)


def expected(tokens: int) -> str:
    return "".join(f"t{i:05d} " for i in range(tokens))


def chunk(choices: list[JSON], **more: Any) -> bytes:
    body = {"id": "chatcmpl-0", "object": "chat.completion.chunk", "created": 1700000000, "model": "scripted"}
    data = b"data: " + orjson.dumps({**body, "choices": choices, **more}) + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(data), data)


def delta(content: JSON, finish: str | None = None) -> bytes:
    return chunk([{"index": 0, "delta": content, "finish_reason": finish}])


@cache
def answer(tokens: int) -> bytes:
    text = b"".join(delta({"content": f"t{i:05d} "}) for i in range(tokens))
    start = delta({"role": "assistant", "content": ""})
    return HEAD + start + text + delta({}, "stop") + chunk([], usage=USAGE) + DONE


def call(name: str, arguments: str) -> bytes:
    function = {"name": name, "arguments": arguments}
    tool = {"index": 0, "id": f"call_{next(numbers)}", "type": "function", "function": function}
    asked = delta({"role": "assistant", "content": None, "tool_calls": [tool]})
    return HEAD + asked + delta({}, "tool_calls") + chunk([], usage=USAGE) + DONE


def reply(body: JSON) -> bytes:
    done = 0
    for message in reversed(body["messages"]):
        if message["role"] == "user":
            break
        done += message["role"] == "tool"
    content = message["content"]
    text = content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
    tool, tokens = TOOL.search(text), TOKENS.search(text)
    if tool and not done:
        return call(tool[1], tool[2])
    return answer(int(tokens[1]) if tokens else 8)


class Connection(asyncio.Protocol):
    """httptools' callbacks are the `on_` methods."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._body = b""

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self._transport.write(reply(orjson.loads(self._body)))


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
