"""What each kind of endpoint shows of an event. All of them read the same entries; nothing is published twice."""

from datetime import UTC, datetime

from gateway.stream.entries import Entry
from gateway.stream.log_lines import line_of
from shared.types import BUILT_IN_EVENTS


def thread_sse(entry: Entry) -> bytes:
    return _sse(entry.id, _thread_name(entry.type), entry.event)


def run_sse(entry: Entry) -> bytes:
    return _sse(entry.id, entry.type, entry.event)


def plain_sse(entry: Entry) -> bytes:
    return b"id: %b\ndata: %b\n\n" % (entry.id, entry.event)


def log_sse(entry: Entry) -> bytes:
    line = line_of(entry.id, entry.type, entry.event)
    return _sse(entry.id, "log", line.model_dump_json().encode()) if line else b""


def thread_message(entry: Entry) -> bytes:
    return _message(entry.id, _thread_name(entry.type), entry.event)


def log_message(entry: Entry) -> bytes:
    line = line_of(entry.id, entry.type, entry.event)
    return _message(entry.id, "log", line.model_dump_json().encode()) if line else b""


def agent_message(entry: Entry) -> bytes:
    """Its time is Redis', as everywhere: its id has it."""
    time = datetime.fromtimestamp(entry.position[0] / 1000, UTC).isoformat(timespec="milliseconds")
    document = b'%b,"time":"%b"}' % (entry.event[:-1], time.replace("+00:00", "Z").encode())
    return _message(entry.id, entry.type, document)


def _thread_name(event_type: str) -> str:
    """A tool's own type under its own name, everything built in as `task_agent_execute`."""
    return "task_agent_execute" if event_type in BUILT_IN_EVENTS else event_type


def _sse(entry_id: bytes, name: str, data: bytes) -> bytes:
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (entry_id, name.encode(), data)


def _message(entry_id: bytes, name: str, data: bytes) -> bytes:
    return b'{"type":"event","id":"%b","event":"%b","data":%b}' % (entry_id, name.encode(), data)
