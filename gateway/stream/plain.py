"""A run's events for clients that know `data:` lines and no more (source design 000).

    id: 1732150000000-0
    data: {"type": "run.queued", "run_id": "...", ...}        each event of the run, unnamed
    data: {"event": "error", "status": 408, ...}              what is said about the stream: `error`, `gap`
    data: {"event": "end"}                                    last, after the run's own end

A stream that ends without it was cut: the run goes on, and GET /api/runs/{run_id}/events?last_id= has the rest.
"""

import orjson

from gateway.stream.entries import Entry
from gateway.stream.sse import KEEP_ALIVE, EventStream
from gateway.stream.subscription import Notice

END = b'data: {"event":"end"}\n\n'


class PlainStream(EventStream):
    """Of a subscription whose projection gives unnamed events."""

    def _shown(self, found: list[Entry]) -> bytes:
        shown = super()._shown(found)
        return shown + END if found[-1].ends_run else shown

    def _noticed(self, notice: Notice) -> bytes:
        if notice.event not in ("error", "gap"):
            return KEEP_ALIVE
        said = {name: value for name, value in notice.data.items() if name != "type"}
        return b"data: %b\n\n" % orjson.dumps({"event": notice.event, **said})
