"""The program inside every local sandbox: it runs commands and touches files for the sandbox host.

    python3 -I -S ARCHIVE FD CHANNEL

FD is a stream socket to the host (frames.py), used as a file: importing `socket` would cost every cold start 3 ms.
CHANNEL is another one, by which the host gets descriptors: one to a message, which bears the host's token for it. A
request carries an `id`; every answer to it carries the same one, and the last answer has `done`. One thread, one epoll
loop; the standard library only, nothing newer than Python 3.9. The host trusts nothing that comes from here: an agent's
processes have the same user, and could speak in this program's name.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import sys
import time

from workflow.sandbox import sandboxd_files as files
from workflow.sandbox import sandboxd_ports as ports
from workflow.sandbox import sandboxd_write
from workflow.sandbox.frames import Decoder, encode
from workflow.sandbox.sandboxd_commands import PIPE_BYTES, Command, Ending
from workflow.sandbox.sandboxd_listening import listening

TYPE_CHECKING = False  # importing typing would cost every cold start 4 ms
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from typing import Any

    Message = dict[str, Any]

WORKSPACE = "/workspace"
RECEIVE_BYTES = 256 * 1024
MAX_BACKLOG = 1024 * 1024  # bytes for the host above which no output is read, so that whoever writes it waits
GRACE = 0.1  # seconds in which the children of an ended command may still add output
QUIET = 0.02  # seconds of silence that end the grace
TICK = 0.02  # seconds between two looks at what is ending


class Daemon:
    """The loop: requests in, answers out."""

    def __init__(self, link: int, channel: int) -> None:
        self._link = link
        self._channel = channel
        os.set_blocking(link, False)
        self._decoder = Decoder()
        self._backlog = bytearray()
        self._poll = select.epoll()
        self._ready: dict[int, Callable[[], object]] = {}
        self._outputs: dict[int, Callable[[], object]] = {}
        self._commands: dict[int, Command] = {}  # by the request that began it
        self._ended: dict[int, int] = {}  # request -> exit code, while output may still come
        self._endings: list[Ending] = []
        self._dials: list[ports.Dial] = []
        self._gate: socket.socket | None = None
        self._writes: dict[int, tuple[Message, bytearray]] = {}
        self._operations = {
            "hello": self._hello,
            "run": self._run,
            "end": self._end,
            "read": self._read,
            "stat": self._stat,
            "hashes": self._hashes,
            "list": self._list,
            "write": self._write,
            "ports": self._ports,
            "dial": self._dial,
            "transfer": self._transfer,
            "listen": self._listen,
            "accept": self._accept,
        }

    def run(self) -> None:
        """Returns when the host has gone."""
        self._watch(self._link, lambda: None)
        while True:
            timeout = TICK if self._ended or self._endings or self._dials else -1
            events = self._poll.poll(timeout)
            if any(fd == self._link for fd, _ in events) and not self._receive():
                return
            for fd, _ in events:
                self._ready.get(fd, _nothing)()
            self._settle()
            self._flush()

    # --- the link

    def _receive(self) -> bool:
        try:
            chunk = os.read(self._link, RECEIVE_BYTES)
        except BlockingIOError:
            return True
        for message, data in self._decoder.feed(chunk):
            try:
                self._operations[message["op"]](message, data)
            except files.Refused as refused:
                self._answer(message, **refused.answer)
            except (OSError, ValueError) as error:
                self._answer(message, **files.refusal(error, str(message.get("path", ""))).answer)
        return bool(chunk)

    def _answer(self, message: Message, **fields: Any) -> None:
        self._send({"id": message["id"], "done": True, **fields})

    def _send(self, message: Message, data: bytes = b"") -> None:
        self._backlog += encode(message, data)

    def _flush(self) -> None:
        """Sends what the host takes now. A full backlog stops the reading of output, never that of requests."""
        with contextlib.suppress(BlockingIOError):
            while self._backlog:
                del self._backlog[: os.write(self._link, self._backlog[:RECEIVE_BYTES])]
        self._poll.modify(self._link, select.EPOLLIN | (select.EPOLLOUT if self._backlog else 0))
        full = len(self._backlog) > MAX_BACKLOG
        for fd, then in self._outputs.items():
            if full == (fd in self._ready):
                self._unwatch(fd) if full else self._watch(fd, then)

    def _watch(self, fd: int, then: Callable[[], object]) -> None:
        self._ready[fd] = then
        self._poll.register(fd, select.EPOLLIN)

    def _unwatch(self, fd: int) -> None:
        if self._ready.pop(fd, None):
            self._poll.unregister(fd)

    # --- commands

    def _hello(self, message: Message, _: bytes) -> None:
        for name, wanted in message["limits"].items():
            limit = getattr(resource, name)
            hard = resource.getrlimit(limit)[1]
            value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(limit, (value, value))
        self._answer(message)

    def _run(self, message: Message, _: bytes) -> None:
        request, cwd = message["id"], os.path.join(WORKSPACE, message["cwd"])
        try:
            command = Command(message["command"], cwd, message["env"])
        except BlockingIOError as error:
            text = "no process can be started: the sandbox is at its limit, so end some background tasks first"
            raise files.Refused("failed", text) from error
        except (OSError, ValueError) as error:
            raise files.refusal(error, cwd) from error
        self._commands[request] = command
        self._outputs[command.output] = lambda: self._pump(request, command)
        self._watch(command.output, self._outputs[command.output])
        self._watch(command.exit, lambda: self._exited(request, command))

    def _pump(self, request: int, command: Command) -> bool:
        """Passes on what one read of the pipe gives; False when there is nothing now."""
        try:
            chunk = os.read(command.output, PIPE_BYTES)
        except BlockingIOError:
            return False
        if not chunk:
            self._close_output(command)
        elif request in self._commands:
            command.last_output = time.monotonic()
            self._send({"id": request}, chunk)
        # else: a process that outlived its command still writes, and nobody listens any more; it must not block
        return bool(chunk)

    def _close_output(self, command: Command) -> None:
        self._unwatch(command.output)
        del self._outputs[command.output]
        os.close(command.output)

    def _exited(self, request: int, command: Command) -> None:
        self._ended[request] = command.reap()
        self._unwatch(command.exit)
        os.close(command.exit)

    def _settle(self) -> None:
        """Ends what can end now."""
        now = time.monotonic()
        for request in list(self._ended):
            command = self._commands[request]
            for _ in range(2 * MAX_BACKLOG // PIPE_BYTES):  # what a full backlog has left in the pipe belongs to it
                if command.output not in self._outputs or not self._pump(request, command):
                    break
            silent = now - command.last_output > QUIET or now - command.ended > GRACE
            if silent or command.output not in self._outputs:
                self._finish(request)
        for ending in list(self._endings):
            if ending.over():
                self._endings.remove(ending)
                self._send({"id": ending.request, "done": True})
        for dial in list(self._dials):
            answer = dial.answer()
            if answer is not None:
                self._dials.remove(dial)
                self._answer(dial.message, **answer)

    def _finish(self, request: int) -> None:
        command = self._commands.pop(request)
        code = self._ended.pop(request)
        self._send({"id": request, "done": True, "code": code, "cwd": command.final_cwd()})

    def _end(self, message: Message, _: bytes) -> None:
        command = self._commands.get(message["run"])
        if command is None:
            self._answer(message)
        else:
            self._endings.append(Ending(message["id"], command, message["grace"]))

    # --- files

    def _read(self, message: Message, _: bytes) -> None:
        answer, pieces = files.read(_path(message), message["offset"], message["limit"])
        for piece in pieces:
            self._send({"id": message["id"]}, piece)
        self._answer(message, **answer)

    def _stat(self, message: Message, _: bytes) -> None:
        self._answer(message, info=files.info(_path(message)))

    def _hashes(self, message: Message, _: bytes) -> None:
        paths = message["paths"]
        self._answer(message, hashes=[files.sha256(os.path.join(WORKSPACE, path)) for path in paths])

    def _list(self, message: Message, _: bytes) -> None:
        self._answer(message, **files.listing(_path(message), message["depth"], message["ignore"], message["limit"]))

    def _write(self, message: Message, data: bytes) -> None:
        """The first frame names the files; frames with the same id bring their bytes, until all are there."""
        first, content = self._writes.setdefault(message["id"], (message, bytearray()))
        content += data
        if len(content) < sum(file["size"] for file in first["files"]):
            return
        del self._writes[message["id"]]
        wanted = [{**file, "path": os.path.join(WORKSPACE, file["path"])} for file in first["files"]]
        sandboxd_write.write(wanted, memoryview(content), WORKSPACE)
        self._answer(message)

    # --- ports

    def _ports(self, message: Message, _: bytes) -> None:
        self._answer(message, ports=listening())

    def _dial(self, message: Message, _: bytes) -> None:
        self._dials.append(ports.Dial(message, self._channel))

    def _transfer(self, message: Message, _: bytes) -> None:
        request = {**message["transfer"], "path": os.path.join(WORKSPACE, message["transfer"]["path"])}
        pid, exit_fd = ports.start_transfer({**request, "token": message["token"]}, self._channel)

        def reap() -> None:
            self._unwatch(exit_fd)
            os.close(exit_fd)
            os.waitpid(pid, 0)

        self._watch(exit_fd, reap)
        self._answer(message)

    # --- the way out

    def _listen(self, message: Message, _: bytes) -> None:
        self._gate = ports.listen(message["port"])
        self._answer(message)

    def _accept(self, message: Message, _: bytes) -> None:
        """Answers once there is a connection; one such request at a time."""
        gate = self._gate
        assert gate is not None

        def admit() -> None:
            try:
                if not ports.accept(gate, self._channel, message["token"]):
                    return
            except OSError as error:
                self._answer(message, **files.refusal(error, "the connection").answer)
            else:
                self._answer(message)
            self._unwatch(gate.fileno())

        self._watch(gate.fileno(), admit)


def _path(message: Message) -> str:
    return os.path.join(WORKSPACE, message["path"])


def _nothing() -> None:
    pass


def _close_all_but(*kept: int) -> None:
    """Whatever leaked in from outside is closed; standard input, output and error become /dev/null."""
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd, inheritable=False)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in kept:
            with contextlib.suppress(OSError):
                os.close(int(name))


def main() -> None:
    link, channel = int(sys.argv[1]), int(sys.argv[2])
    for fd in (link, channel):
        os.set_inheritable(fd, False)
    _close_all_but(link, channel)
    sandboxd_write.finish(WORKSPACE)
    Daemon(link, channel).run()
