"""A server for the inside of a sandbox, of the standard library only: `python3 server_inside.py PORT`."""

import base64
import hashlib
import json
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, body: bytes, **headers: str) -> None:
        self.send_response(200)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:  # noqa: PLR0912
        path = self.path.partition("?")[0]
        if path == "/ws":
            self.websocket()
        elif path == "/stream":
            self.send_response(200)
            self.end_headers()
            for n in range(2):
                self.wfile.write(b"tick %d\n" % n)
                self.wfile.flush()
                while n == 0 and not released.is_set():
                    time.sleep(0.01)
            self.close_connection = True
        elif path == "/release":
            released.set()
            self.answer(b"")
        elif path == "/redirect":
            self.send_response(307)
            self.send_header("Location", f"http://{self.headers['Host']}/there?a=1")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif path == "/never":
            time.sleep(60)
        elif path == "/garbage":
            self.wfile.write(b"this is no HTTP\r\n\r\n")
            self.close_connection = True
        elif path == "/hangup":
            self.close_connection = True
        elif path == "/short":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"only this")
            self.close_connection = True
        elif path == "/huge-head":
            self.answer(b"", X="y" * 200_000)
        elif path == "/upgrade":
            self.wfile.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: evil\r\nConnection: Upgrade\r\n\r\n")
        elif path == "/cookies":
            self.send_response(200)
            for value in ("own=1; Path=/", "trunkline_port=stolen", " __Host-trunkline_port=x"):
                self.send_header("Set-Cookie", value)
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            told = {"path": self.path, "headers": {name.lower(): value for name, value in self.headers.items()}}
            self.answer(json.dumps(told).encode(), Content_Type="text/html")

    def do_POST(self) -> None:
        digest, size = hashlib.sha256(), 0
        if self.headers.get("Transfer-Encoding") == "chunked":
            while length := int(self.rfile.readline(), 16):
                digest.update(self.rfile.read(length))
                size += length
                self.rfile.readline()
        else:
            size = int(self.headers["Content-Length"])
            for start in range(0, size, 65536):
                digest.update(self.rfile.read(min(65536, size - start)))
        self.answer(f"{size} {digest.hexdigest()}".encode())

    def websocket(self) -> None:
        """Echoes frames; on the text "close" it closes with 4001 "enough", on "drop" it hangs up."""
        magic = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(magic.encode()).digest()).decode()
        lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
        lines.append(f"Sec-WebSocket-Accept: {accept}")
        if offered := self.headers.get("Sec-WebSocket-Protocol"):
            lines.append(f"Sec-WebSocket-Protocol: {offered.split(',')[-1].strip()}")
        self.wfile.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        self.close_connection = True
        while True:
            opcode, data = self.frame()
            if opcode == 8:
                code = int.from_bytes(data[:2], "big")
                Path("/workspace/closed").write_text(f"{code} {data[2:].decode()}")
                return
            if data == b"drop":
                return
            if data == b"close":
                opcode, data = 8, (4001).to_bytes(2, "big") + b"enough"
            self.wfile.write(bytes([0x80 | opcode]) + length_of(data) + data)

    def frame(self) -> tuple[int, bytes]:
        first, second = self.rfile.read(2)
        size = second & 127
        if size > 125:
            size = int.from_bytes(self.rfile.read(2 if size == 126 else 8), "big")
        mask = self.rfile.read(4)
        data = self.rfile.read(size)
        key = (mask * (size // 4 + 1))[:size]
        return first & 15, (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")

    def log_message(self, format: str, *args: object) -> None:
        pass


def length_of(data: bytes) -> bytes:
    if len(data) < 126:
        return bytes([len(data)])
    return b"\x7e" + len(data).to_bytes(2, "big") if len(data) < 65536 else b"\x7f" + len(data).to_bytes(8, "big")


released = threading.Event()
ThreadingHTTPServer.request_queue_size = 300
ThreadingHTTPServer.daemon_threads = True
socket.setdefaulttimeout(60)
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
