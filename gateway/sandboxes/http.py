"""One HTTP exchange with a server in a sandbox. Bodies flow through; none is held."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import Any

import httpcore
from starlette.types import Message, Receive, Scope, Send

from gateway.sandboxes.place import Headers, inward, outward
from gateway.sandboxes.refusal import ENDED, Refusal
from gateway.sandboxes.tunnel import Tunnel


@dataclass(frozen=True, slots=True)
class Patience:
    """In seconds: until an answer begins, and with silence in it."""

    answer: float
    silence: float


async def relay(
    tunnel: Tunnel, scope: Scope, receive: Receive, send: Send, patience: Patience, *, end: Coroutine[Any, Any, None]
) -> None:
    """Raises Refusal, while the answer has not begun. One that breaks off breaks off for the client too, and so does
    one that is under way when `end` returns.
    """
    sent, begun = asyncio.Event(), asyncio.Event()

    async def answer(message: Message) -> None:
        begun.set()
        await send(message)

    exchange = asyncio.create_task(_exchange(tunnel, scope, _body(receive, sent), answer, patience))
    leaving, ending = asyncio.create_task(_leaving(receive, sent)), asyncio.create_task(end)
    tasks = (exchange, leaving, ending)
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if exchange.done():
            exchange.result()
        elif ending.done() and not begun.is_set():
            raise Refusal(403, ENDED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _exchange(tunnel: Tunnel, scope: Scope, body: AsyncIterator[bytes], send: Send, patience: Patience) -> None:
    timeouts = {"read": patience.answer, "write": patience.answer}
    try:
        request = _request(scope, body, timeouts, tunnel.headers)
        connection = httpcore.AsyncHTTP11Connection(request.url.origin, tunnel)
        answer = await connection.handle_async_request(request)
    except httpcore.TimeoutException as error:
        raise Refusal(504, f"The server in the sandbox has not answered within {patience.answer:g} s.") from error
    except httpcore.LocalProtocolError as error:
        raise Refusal(400, f"This is no valid HTTP request: {error}") from error
    except (httpcore.NetworkError, httpcore.ProtocolError) as error:
        detail = "The server in the sandbox hung up, or answered with something that is not HTTP."
        raise Refusal(502, detail) from error
    if answer.status < 200:
        raise Refusal(502, "The server in the sandbox wants another protocol.")
    timeouts["read"] = patience.silence
    headers = outward(answer.headers, scope["headers"], tunnel.headers)
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    async for piece in answer.aiter_stream():
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def _request(scope: Scope, body: AsyncIterator[bytes], timeouts: dict[str, float], own: Headers) -> httpcore.Request:
    headers: Headers = [*inward(scope["headers"], scope["scheme"], own), (b"connection", b"close")]
    names = {name for name, _ in scope["headers"]}
    if b"transfer-encoding" in names:
        headers = [
            *((name, value) for name, value in headers if name != b"content-length"),
            (b"transfer-encoding", b"chunked"),
        ]
    target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
    url = httpcore.URL(scheme=b"http", host=b"sandbox", port=80, target=target)
    return httpcore.Request(
        scope["method"].encode(), url, headers=headers, content=body, extensions={"timeout": timeouts}
    )


async def _body(receive: Receive, sent: asyncio.Event) -> AsyncIterator[bytes]:
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise httpcore.ReadError("the client is gone")
        if piece := message.get("body"):
            yield piece
        more = message.get("more_body", False)
    sent.set()


async def _leaving(receive: Receive, sent: asyncio.Event) -> None:
    """Returns when the client is gone, which says so only after its whole request."""
    await sent.wait()
    while (await receive())["type"] != "http.disconnect":
        pass
