"""One request to a remote machine (remote.py): a process of its own, which answers on its standard output and ends.

    python3 -I -S ARCHIVE remote FOLDER REQUEST

FOLDER holds what lasts from request to request (sandboxd_ledger.py). REQUEST is base64, or `@` and the path of a file
to be removed: a line of JSON, with bytes behind it. The answer is a line of JSON too, after the request's `mark`, since
login shells like to print something first. A larger answer's bytes lie in a file that it names.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import sys
import time

from workflow.sandbox import sandboxd_files as files
from workflow.sandbox import sandboxd_parts, sandboxd_write
from workflow.sandbox.sandboxd_commands import Ending
from workflow.sandbox.sandboxd_ledger import Fenced, Ledger, Lost, Record, run_of
from workflow.sandbox.sandboxd_listening import listening
from workflow.sandbox.sandboxd_supervisor import KILL_GRACE, spawn
from workflow.sandbox.sandboxd_text import cut, whole_characters

TYPE_CHECKING = False  # importing typing would cost every request 4 ms
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    JSON = dict[str, Any]

WORKSPACE = "/workspace"
MAX_RUNNING = 64
INLINE_BYTES = 128 * 1024  # of a file's content in an answer
FOLLOW_BYTES = 256 * 1024
TASK_OUTPUT_BYTES = 64 * 1024
SAVED_BYTES = 16 * 1024 * 1024
COLLECT = 0.1  # seconds in which what a command writes is gathered into one answer
LOOK = 0.02  # seconds between two looks
CANCEL_GRACE = 2.0  # seconds from SIGTERM to SIGKILL
ENDING_SECONDS = 5.0  # beyond the grace of SIGTERM, for processes that are slow to die
OUTBOX_SECONDS = 600
KILLED = 137


class Remote:
    """The operations. Each takes the request and the bytes behind it, and returns the answer."""

    def __init__(self, folder: str) -> None:
        self._ledger = Ledger(folder)

    def answer(self, request: JSON, data: bytes) -> JSON:
        """Raises nothing that a caller may cause."""
        try:
            answer: JSON = getattr(self, f"do_{request['op']}")(request, data)
        except files.Refused as refused:
            return refused.answer
        except Fenced as fenced:
            return {"error": "fenced", "text": str(fenced)}
        except Lost as lost:
            return {"error": "lost", "text": str(lost)}
        except FileNotFoundError as error:  # one of ours: those of the agent are refused where they are looked for
            return {"error": "lost", "text": f"somebody removed what the sandbox remembers: {error}"}
        except (OSError, ValueError) as error:
            return files.refusal(error, str(request.get("path", ""))).answer
        return answer

    def do_hello(self, request: JSON, _: bytes) -> JSON:
        with self._writing(), self._ledger.locked():
            return {"life": self._ledger.life(request["known"]), "blank": self._ledger.blank}

    def do_ports(self, _: JSON, __: bytes) -> JSON:
        return {"ports": listening()}

    # --- commands

    def do_exec(self, request: JSON, _: bytes) -> JSON:
        key = request["key"]
        record = self._ledger.record(key)
        with self._ledger.locked():
            self._ledger.fence(key, request["epoch"])
            if not record.exists:
                if self._ledger.begun(key):
                    raise _lost(key)
                self._begin(record, request)
        return self._follow(record, request)

    def do_attach(self, request: JSON, _: bytes) -> JSON:
        key = request["key"]
        record = self._ledger.record(key)
        with self._ledger.locked():
            self._ledger.fence(key, request["epoch"])
            if not record.exists:
                if self._ledger.cannot_tell(key):
                    raise _lost(key)
                return {"unknown": True}
        return self._follow(record, request)

    def _begin(self, record: Record, request: JSON) -> None:
        key = request["key"]
        if len(os.listdir(self._ledger.path("running"))) >= MAX_RUNNING:
            raise files.Refused("refused", f"{MAX_RUNNING} commands are running: end some background tasks first")
        spec = {
            **request,
            "cwd": self._cwd(request["cwd"]),
            "moves": request["cwd"] is None and not request["background"],
        }
        marker = self._ledger.path("running", record.name)
        task_id = self._ledger.new_task(record) if request["background"] else None
        state = {
            **{"key": key, "text": request["command"][:1000], "began": time.monotonic(), "task_id": task_id},
            **{"cwd": spec["cwd"], "ended": False, "code": None, "killed_by": None, "seconds": 0.0},
            **{"total": 0, "unsaved": 0, "mark": ""},
        }
        self._ledger.begin(key)
        with open(marker, "wb"):
            pass
        try:
            spawn(self._ledger, record, spec, state)
        except files.Refused:
            os.unlink(marker)
            self._ledger.forget(key)
            raise

    def _cwd(self, asked: str | None) -> str:
        """Raises Refused where the folder that was asked for is not there."""
        if asked is None:
            with contextlib.suppress(FileNotFoundError), open(self._ledger.path("cwd")) as file:
                last = file.read()
                if os.path.isdir(last):
                    return last
            return WORKSPACE
        folder = os.path.join(WORKSPACE, asked)
        if files.info(folder)["kind"] != "directory":
            raise files.Refused("not_regular", f"{folder} is not a folder", folder, file_kind="file")
        return folder

    def _follow(self, record: Record, request: JSON) -> JSON:
        """What it wrote from an offset on, as soon as there is some; its result once it is over or a task."""
        offset, began = request["offset"], time.monotonic()
        while True:
            state = self._look(record)
            over = state["ended"] or state["task_id"]
            data, start = record.log.read(offset, FOLLOW_BYTES)
            seconds = time.monotonic() - began
            if over or len(data) >= FOLLOW_BYTES or (data and seconds > COLLECT) or seconds > request["wait"]:
                break
            time.sleep(LOOK)
        at_end = over and start + len(data) >= record.log.total
        data = data if at_end else data[: whole_characters(data)]
        gap = f"\n[{start - offset} bytes left out]\n" if data and start > offset else ""
        answer = {"text": gap + data.decode(errors="replace"), "next_offset": start + len(data)}
        if at_end or (over and not state["ended"]):
            answer["result"] = self._result(record, state, request["output_chars"])
        return answer

    def _look(self, record: Record) -> JSON:
        """Its state. Raises Lost when its supervisor has died."""
        supervised, state = record.supervised, record.state
        if not state["ended"] and not supervised:
            raise _lost(state["key"])
        return state

    def _result(self, record: Record, state: JSON, chars: int) -> JSON:
        total = max(state["total"], record.log.total)
        kept = record.log.kept
        return {
            **_ending(state),
            "output": cut(record.log.read, total, kept, chars),
            "dropped_bytes": total - kept + state["unsaved"],
            "task_id": state["task_id"],
            "cwd": files.printable(state["cwd"]),
        }

    def do_cancel(self, request: JSON, _: bytes) -> JSON:
        """`pending`: how many of its commands have not ended yet."""
        with self._ledger.locked():
            self._ledger.fence(request["run_id"], request["epoch"])
            mine = []
            for record in self._ledger.records("running"):
                with contextlib.suppress(Lost):
                    state = record.state
                    if run_of(state["key"]) == request["run_id"] and not state["task_id"]:
                        mine.append(record)
                        record.ask_to_end(CANCEL_GRACE, "cancellation")
        return {"pending": sum(not self._ended(record, CANCEL_GRACE) for record in mine)}

    def _ended(self, record: Record, grace: float) -> bool:
        """Waits until the processes of a command that was asked to end are gone; whether they are."""
        deadline = time.monotonic() + grace + ENDING_SECONDS
        remains: Ending | None = None
        while time.monotonic() < deadline:
            supervised, state = record.supervised, record.state
            if state["ended"]:
                return True
            if not supervised:
                remains = remains or Ending(0, _Orphans(state["mark"]), grace)
                if remains.over():
                    return True
            time.sleep(LOOK)
        return False

    # --- tasks

    def do_tasks(self, _: JSON, __: bytes) -> JSON:
        tasks = []
        for record in self._ledger.records():
            with contextlib.suppress(Lost):
                state = record.state
                if state["task_id"]:
                    tasks.append(self._task(record, state))
        return {"tasks": sorted(tasks, key=lambda task: int(task["task_id"][3:]))}

    def do_task_output(self, request: JSON, _: bytes) -> JSON:
        record, deadline = self._known_task(request["task_id"]), time.monotonic() + request["wait"]
        while not (state := self._look(record))["ended"] and time.monotonic() < deadline:
            time.sleep(LOOK)
        data, start = record.log.read(request["offset"], TASK_OUTPUT_BYTES)
        at_end = state["ended"] and start + len(data) >= record.log.total
        data = data if at_end else data[: whole_characters(data)]
        answer = {"task": self._task(record, state), "text": data.decode(errors="replace")}
        return {**answer, "next_offset": start + len(data), "skipped_bytes": start - request["offset"]}

    def do_kill_task(self, request: JSON, _: bytes) -> JSON:
        with self._ledger.locked():
            self._ledger.fence(request["key"], request["epoch"])
            record = self._known_task(request["task_id"])
            if not record.state["ended"]:
                record.ask_to_end(KILL_GRACE, "request")
        self._ended(record, KILL_GRACE)
        return {"task": self._task(record, self._look(record))}

    def _known_task(self, task_id: str) -> Record:
        record = self._ledger.task(task_id)
        if record is None:
            known = ", ".join(task["task_id"] for task in self.do_tasks({}, b"")["tasks"]) or "none"
            raise files.Refused("refused", f"there is no background task {task_id}; known tasks: {known}")
        return record

    def _task(self, record: Record, state: JSON) -> JSON:
        if not state["ended"] and not record.supervised:
            state = {**state, "ended": True, "code": KILLED, "killed_by": "the end of the sandbox"}
        return {"task_id": state["task_id"], "key": state["key"], "command": state["text"], **_ending(state)}

    def do_save_output(self, request: JSON, __: bytes) -> JSON:
        with self._ledger.locked():
            self._ledger.fence(request["key"], request["epoch"])
        record = self._ledger.record(request["output_of"])
        if not record.exists:
            raise files.Refused("refused", f"no command has the key {request['output_of']}")
        head, _ = record.log.read(0, SAVED_BYTES)
        tail, start = record.log.read(len(head), SAVED_BYTES)
        gap = f"\n[{start - len(head)} bytes left out]\n".encode() if start > len(head) else b""
        _write([{"path": request["path"], "executable": None, "expect": None}], [head + gap + tail])
        return {}

    # --- files

    def do_read(self, request: JSON, _: bytes) -> JSON:
        answer, pieces = files.read(_path(request), request["offset"], request["limit"])
        content = b"".join(pieces)
        if len(content) <= INLINE_BYTES:
            return {**answer, "content": base64.b64encode(content).decode()}
        return {**answer, "file": self._to_outbox(content), "length": len(content)}

    def _to_outbox(self, content: bytes) -> str:
        """A file for the caller to fetch; those that were fetched long ago go."""
        folder = self._ledger.path("outbox")
        for name in os.listdir(folder):
            with contextlib.suppress(FileNotFoundError):
                if os.stat(os.path.join(folder, name)).st_mtime < time.time() - OUTBOX_SECONDS:
                    os.unlink(os.path.join(folder, name))
        path = os.path.join(folder, os.urandom(8).hex())
        with open(path, "wb") as file:
            file.write(content)
        return path

    def do_stat(self, request: JSON, _: bytes) -> JSON:
        return {"info": files.info(_path(request))}

    def do_hashes(self, request: JSON, _: bytes) -> JSON:
        return {"hashes": [files.sha256(os.path.join(WORKSPACE, path)) for path in request["paths"]]}

    def do_list(self, request: JSON, _: bytes) -> JSON:
        return files.listing(_path(request), request["depth"], request["ignore"], request["limit"])

    def do_write(self, request: JSON, data: bytes) -> JSON:
        """A repeated key waits for the first call with it, if that is still at work."""
        key = request["key"]
        contents, start = [], 0
        for file in request["files"]:
            contents.append(data[start : start + file["size"]])
            start += file["size"]
        note = data[start:]
        with self._ledger.locked():
            self._ledger.fence(key, request["epoch"])
        with self._writing():
            recorded = self._ledger.note(key)
            if recorded is not None:
                return {"note": base64.b64encode(recorded).decode(), "repeated": True}
            self._write_once(key, request["files"], contents, note)
        return {"note": base64.b64encode(note).decode(), "repeated": False}

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """One write at a time, and none half done before it."""
        with self._ledger.locked("write"):
            sandboxd_write.finish(WORKSPACE)
            yield

    def _write_once(self, key: str, plan: list[JSON], contents: list[bytes], note: bytes) -> None:
        if self._ledger.begun(key):
            raise _lost(key)
        self._ledger.begin(key)
        try:
            _write(plan, contents)
        except files.Refused:  # nothing was written
            self._ledger.forget(key)
            raise
        with self._ledger.locked():
            self._ledger.keep_note(key, note)

    def do_recall(self, request: JSON, _: bytes) -> JSON:
        key = request["key"]
        with self._ledger.locked():
            self._ledger.fence(key, request["epoch"])
        with self._writing():
            note = self._ledger.note(key)
            if note is None and self._ledger.cannot_tell(key):
                raise _lost(key)
        return {"note": None if note is None else base64.b64encode(note).decode()}

    # --- transfers

    def do_transfer(self, request: JSON, data: bytes) -> JSON:
        parts = self._ledger.path("parts")
        return sandboxd_parts.transfer(parts, request["name"], request["parts"], request["transfer"], data)

    def do_forget(self, request: JSON, _: bytes) -> JSON:
        sandboxd_parts.forget(self._ledger.path("parts"), request["name"])
        return {}

    def do_settle(self, _: JSON, __: bytes) -> JSON:
        self._ledger.settle()
        return {}


class _Orphans:
    """The processes of a command whose supervisor is gone: those that bear its mark."""

    pid = -1

    def __init__(self, mark: str) -> None:
        self.mark = mark


def _ending(state: JSON) -> JSON:
    status = "running" if not state["ended"] else "killed" if state["killed_by"] else "exited"
    seconds = state["seconds"] if state["ended"] else time.monotonic() - state["began"]
    answer = {"status": status, "exit_code": state["code"], "killed_by": state["killed_by"]}
    return {**answer, "duration_ms": round(max(0.0, seconds) * 1000)}


def _write(plan: list[JSON], contents: list[bytes]) -> None:
    wanted = [
        {**file, "path": os.path.join(WORKSPACE, file["path"]), "size": len(content)}
        for file, content in zip(plan, contents)  # noqa: B905 - strict= is Python 3.10
    ]
    sandboxd_write.write(wanted, memoryview(b"".join(contents)), WORKSPACE)


def _path(request: JSON) -> str:
    return os.path.join(WORKSPACE, request["path"])


def _lost(key: str) -> Lost:
    return Lost(f"{key} began earlier: whether it ended, and how, is not known any more")


def _request(text: str) -> bytes:
    if not text.startswith("@"):
        return base64.b64decode(text)
    with open(text[1:], "rb") as file:
        content = file.read()
    os.unlink(text[1:])
    return content


def main() -> None:
    os.umask(0o022)
    os.environ["TERM"] = "dumb"
    line, _, data = _request(sys.argv[3]).partition(b"\n")
    request = json.loads(line)
    answer = Remote(sys.argv[2]).answer(request, data)
    sys.stdout.write(f"\n{request['mark']}{json.dumps(answer)}\n")
    sys.stdout.flush()
