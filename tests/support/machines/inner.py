"""Runs inside a machine: starts processes, touches files, dials ports, for the double that owns the machine.

    python3 -I -c SOURCE CONTROL

CONTROL is the path of a Unix socket to connect to; what is connected to it then sends descriptors, each one a channel:
a first frame with a request, and whatever the operation answers. Standard library only, nothing of the project.
"""

import contextlib
import errno
import json
import os
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

Request = dict[str, Any]

HEAD = struct.Struct(">cI")
JSON, OUT, ERR, DATA, END = b"j", b"o", b"e", b"d", b"x"
PIECE = 64 * 1024


class Channel:
    """Frames over one connection; many threads may send."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._lock = threading.Lock()

    def send(self, kind: bytes, payload: bytes = b"") -> None:
        with self._lock:
            self.connection.sendall(HEAD.pack(kind, len(payload)) + payload)

    def tell(self, **fields: Any) -> None:
        self.send(JSON, json.dumps(fields).encode())

    def receive(self) -> tuple[bytes, bytes]:
        """(kind, payload), or (END, b"") when the other side has gone."""
        head = self._exactly(HEAD.size)
        if head is None:
            return END, b""
        kind, length = HEAD.unpack(head)
        return kind, self._exactly(length) or b""

    def _exactly(self, length: int) -> bytes | None:
        received = bytearray()
        while len(received) < length:
            chunk = self.connection.recv(length - len(received))
            if not chunk:
                return None
            received += chunk
        return bytes(received)

    def pieces(self) -> Iterator[bytes]:
        while True:
            kind, payload = self.receive()
            if kind != DATA:
                return
            yield payload

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()


class Process:
    """A started process and those who follow it. Nobody following it does not hold it up."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.lock = threading.Lock()
        self.channels: list[Channel] = []
        self.ended: int | None = None
        self.popen = subprocess.Popen(
            request["args"],
            cwd=request["cwd"],
            env=request["env"],
            stdin=subprocess.PIPE if request["stdin"] else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if request["split"] else subprocess.STDOUT,
            bufsize=0,
            start_new_session=request["session"],
        )

    def follow(self, channel: Channel) -> None:
        with self.lock:
            channel.tell(pid=self.popen.pid)
            if self.ended is None:
                self.channels.append(channel)
            else:
                self._tell_end(channel)

    def run(self) -> None:
        pipes = [(OUT, self.popen.stdout), (ERR, self.popen.stderr)]
        readers = [threading.Thread(target=self._pump, args=pipe, daemon=True) for pipe in pipes if pipe[1]]
        for reader in readers:
            reader.start()
        code = self.popen.wait()
        for reader in readers:
            reader.join(self.request["drain"])
        with self.lock:
            self.ended = code
            for channel in self.channels:
                self._tell_end(channel)
            self.channels.clear()

    def _pump(self, kind: bytes, pipe: IO[bytes]) -> None:
        while chunk := pipe.read(PIECE):
            with self.lock:
                followers = list(self.channels)
            for channel in followers:
                try:
                    channel.send(kind, chunk)
                except OSError:
                    self._leave(channel)

    def _leave(self, channel: Channel) -> None:
        with self.lock:
            if channel in self.channels:
                self.channels.remove(channel)

    def _tell_end(self, channel: Channel) -> None:
        with contextlib.suppress(OSError):
            channel.tell(code=self.ended)
            channel.close()


PROCESSES: dict[int, Process] = {}


def spawn(request: Request, channel: Channel) -> None:
    process = Process(request)
    pid = process.popen.pid
    PROCESSES[pid] = process
    process.follow(channel)
    process.run()
    PROCESSES.pop(pid)


def follow(request: Request, channel: Channel) -> None:
    PROCESSES[request["pid"]].follow(channel)


def processes(_: Request, channel: Channel) -> None:
    channel.tell(processes=[{**each.request, "pid": pid} for pid, each in list(PROCESSES.items())])


def send_signal(request: Request, channel: Channel) -> None:
    process = PROCESSES[request["pid"]]
    if request["group"]:
        os.killpg(process.popen.pid, request["signal"])
    else:
        process.popen.send_signal(request["signal"])
    channel.tell()


def feed(request: Request, channel: Channel) -> None:
    """Bytes for a process's standard input, until END; `close` also ends that input."""
    pipe = PROCESSES[request["pid"]].popen.stdin
    if pipe is None or pipe.closed:
        raise BrokenPipeError("stdin not enabled or closed")
    for piece in channel.pieces():
        pipe.write(piece)
    if request["close"]:
        pipe.close()
    channel.tell()


def others() -> list[int]:
    return [
        int(name)
        for name in (each.name for each in Path("/proc").iterdir())
        if name.isdigit() and int(name) not in SPARED
    ]


def signal_others(number: int) -> None:
    for pid in others():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def freeze(_: Request, channel: Channel) -> None:
    """Stops every process of the machine but this one; twice, for what was started meanwhile."""
    signal_others(signal.SIGSTOP)
    signal_others(signal.SIGSTOP)
    channel.tell()


def thaw(_: Request, channel: Channel) -> None:
    signal_others(signal.SIGCONT)
    channel.tell()


def clear(_: Request, channel: Channel) -> None:
    """Kills every process of the machine but this one, as a reboot does."""
    while any(_state(pid) not in "ZX" for pid in others()):
        signal_others(signal.SIGKILL)
    channel.tell()


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return "X"


def describe(path: Path) -> dict[str, Any]:
    status = path.lstat()
    link = str(path.readlink()) if stat.S_ISLNK(status.st_mode) else None
    with contextlib.suppress(OSError):
        status = path.stat()
    return {
        "name": path.name,
        "path": str(path),
        "directory": stat.S_ISDIR(status.st_mode),
        "regular": stat.S_ISREG(status.st_mode),
        "size": status.st_size,
        "mode": stat.S_IMODE(status.st_mode),
        "permissions": stat.filemode(status.st_mode),
        "mtime": status.st_mtime,
        "link": link,
    }


def info(request: Request, channel: Channel) -> None:
    channel.tell(entry=describe(Path(request["path"])))


def listing(request: Request, channel: Channel) -> None:
    found: list[Path] = []
    for folder, folders, files in os.walk(request["path"], onerror=_raise):
        depth = os.path.relpath(folder, request["path"]).count("/") + (folder != request["path"]) + 1
        found += [Path(folder, name) for name in folders + files]
        if depth >= request["depth"]:
            folders.clear()
    channel.tell(entries=[describe(path) for path in sorted(found)])


def _raise(error: OSError) -> NoReturn:
    raise error


def make_folder(request: Request, channel: Channel) -> None:
    Path(request["path"]).mkdir(mode=request["mode"], parents=True)
    channel.tell(entry=describe(Path(request["path"])))


def remove(request: Request, channel: Channel) -> None:
    path = Path(request["path"])
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
    channel.tell()


def move(request: Request, channel: Channel) -> None:
    Path(request["source"]).rename(request["target"])
    channel.tell(entry=describe(Path(request["target"])))


def change_mode(request: Request, channel: Channel) -> None:
    Path(request["path"]).chmod(request["mode"])
    channel.tell()


def read(request: Request, channel: Channel) -> None:
    with Path(request["path"]).open("rb") as file:
        channel.tell(size=os.fstat(file.fileno()).st_size)
        while piece := file.read(PIECE):
            channel.send(DATA, piece)
    channel.send(END)


def write(request: Request, channel: Channel) -> None:
    """Makes the missing folders. Not atomic, as neither service is."""
    path = Path(request["path"])
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for piece in channel.pieces():
            file.write(piece)
    channel.tell(entry=describe(path))


def dial(request: Request, channel: Channel) -> None:
    """After the answer the channel is the connection itself, byte by byte."""
    server = socket.create_connection(("127.0.0.1", request["port"]), timeout=5)
    server.settimeout(None)
    channel.tell()
    back = threading.Thread(target=_copy, args=(server, channel.connection), daemon=True)
    back.start()
    _copy(channel.connection, server)
    back.join()
    server.close()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(PIECE):
            target.sendall(chunk)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


OPERATIONS = {
    each.__name__: each
    for each in (
        *(spawn, follow, processes, send_signal, feed, freeze, thaw, clear, info, listing, make_folder),
        *(remove, move, change_mode, read, write, dial),
    )
}


def serve(connection: socket.socket) -> None:
    channel = Channel(connection)
    _, payload = channel.receive()
    request = json.loads(payload)
    try:
        OPERATIONS[request["op"]](request, channel)
    except KeyError:
        _refuse(channel, request, "ESRCH", "no such process")
    except OSError as error:
        _refuse(channel, request, errno.errorcode.get(error.errno or errno.EIO, "EIO"), str(error))
    finally:
        if request["op"] not in ("spawn", "follow"):
            channel.close()


def _refuse(channel: Channel, request: Request, code: str, text: str) -> None:
    with contextlib.suppress(OSError):
        channel.tell(error=code, text=text)
        if request["op"] == "write":  # closing before all is read would take the answer away from the sender
            for _ in channel.pieces():
                pass
        channel.close()


def main() -> None:
    os.umask(0o022)
    control = socket.socket(socket.AF_UNIX)
    control.connect(sys.argv[1])
    while True:
        _, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not descriptors:
            return
        connection = socket.socket(fileno=descriptors[0])
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


SPARED = {1, os.getpid(), os.getppid()}


if __name__ == "__main__":
    main()
