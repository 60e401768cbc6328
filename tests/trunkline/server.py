"""A scripted HTTP server that can do what a real one does only on bad days: hang up, refuse, answer nonsense."""

import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

JSON = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """`cut`: the connection is broken off after the body instead of being ended as it should."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: Any


def as_json(body: Any, status: int = 200, **headers: str) -> Answer:
    return Answer(status, json.dumps(body).encode(), {"content-type": "application/json", **headers})


def stream(*events: JSON, retry_ms: int = 1, cut: bool = False) -> Answer:
    """Events whose `id` key is their stream id."""
    frames = [f"retry: {retry_ms}\n\n"]
    for event in events:
        frames.append(f"id: {event['id']}\ndata: {json.dumps(event)}\n\n")
    return Answer(200, "".join(frames).encode(), {"content-type": "text/event-stream"}, cut)


def event(stream_id: str, kind: str, *, step: int | None = None, attempt: int = 1, **data: Any) -> JSON:
    time = f"2026-11-21T05:00:{int(stream_id.partition('-')[0]):02d}Z"
    return {
        "id": stream_id,
        "type": kind,
        "thread_id": "t",
        "run_id": "t.r",
        "step_id": None if step is None else f"t.r.{step}",
        "attempt": attempt,
        "time": time,
        "data": data,
    }


@contextmanager
def serving(*answers: Answer) -> Iterator[tuple[str, list[Asked]]]:
    """Gives each request the next answer. Yields the server's URL and what it was asked."""
    asked: list[Asked] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(list(answers), asked))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(answers: list[Answer], asked: list[Asked]) -> Callable[..., BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            length = int(self.headers.get("content-length", 0))
            body = json.loads(self.rfile.read(length)) if length else None
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked.append(Asked(self.command, self.path, headers, body))
            self._give(answers.pop(0))

        do_POST = do_PATCH = do_PUT = do_DELETE = do_GET

        def _give(self, answer: Answer) -> None:
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(answer.body) + (100 if answer.cut else 0)))
            self.end_headers()
            self.wfile.write(answer.body)
            if answer.cut:
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: what was asked is in the list."""

    return Handler


def kinds(events: Sequence[Any]) -> list[str]:
    return [event.type for event in events]
