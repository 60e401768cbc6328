"""What a command wrote, in bounded memory: the first part, and a ring of the newest."""

from collections import deque

from shared.config.types import MIB
from workflow.sandbox.base import Output
from workflow.sandbox.sandboxd_text import cut


class Spool:
    """Bytes are addressed by their place in the whole output, from 0; what lies between head and tail is dropped."""

    def __init__(self, head_bytes: int = 5 * MIB, tail_bytes: int = 5 * MIB) -> None:
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._head_bytes, self._tail_bytes = head_bytes, tail_bytes
        self._tail_size = 0
        self.total = 0

    @property
    def dropped(self) -> int:
        return self.total - self.kept

    @property
    def kept(self) -> int:
        return len(self._head) + self._tail_size

    def append(self, data: bytes) -> None:
        self.total += len(data)
        room = self._head_bytes - len(self._head)
        self._head += data[:room]
        if len(data) > room:
            self._append_to_tail(data[room:])

    def _append_to_tail(self, data: bytes) -> None:
        self._tail.append(data)
        self._tail_size += len(data)
        while self._tail_size > self._tail_bytes:
            oldest = self._tail.popleft()
            excess = self._tail_size - self._tail_bytes
            self._tail_size -= min(excess, len(oldest))
            if len(oldest) > excess:
                self._tail.appendleft(oldest[excess:])

    def read(self, offset: int, limit: int) -> tuple[bytes, int]:
        """Up to `limit` bytes from `offset` on, and where they begin: later than `offset` where bytes were dropped."""
        if offset < len(self._head):
            return bytes(self._head[offset : offset + limit]), offset
        tail_start = self.total - self._tail_size
        start = min(max(offset, tail_start), self.total)
        pieces, place, wanted = [], tail_start, limit
        for chunk in self._tail:
            if place + len(chunk) > start and wanted > 0:
                piece = chunk[max(0, start - place) :][:wanted]
                pieces.append(piece)
                wanted -= len(piece)
            place += len(chunk)
        return b"".join(pieces), start

    def discard(self) -> None:
        """Gives the memory back; all of it counts as dropped."""
        self._head, self._head_bytes = bytearray(), 0
        self._tail.clear()
        self._tail_size = 0

    def output(self, chars: int) -> Output:
        """At most `chars` characters, the middle left out."""
        return Output(**cut(self.read, self.total, self.kept, chars))
