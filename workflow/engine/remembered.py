"""What a worker keeps of runs that wait: their journals, so that going on reads only what is new."""

from collections import OrderedDict

from shared.threads.attempt import Attempt

MAX_BYTES = 16 * 1024**2


class Remembered:
    """The latest attempts at runs that wait, of up to `max_bytes` as JSON together; the oldest go first.

    A flow that waits n times is replayed n times: without this it would read its journal whole each time.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._attempts: OrderedDict[str, Attempt] = OrderedDict()
        self._max_bytes = max_bytes
        self._size = 0

    def keep(self, attempt: Attempt) -> None:
        self.take(attempt.run.id)
        self._attempts[attempt.run.id] = attempt
        self._size += attempt.size
        while self._size > self._max_bytes:
            self.take(next(iter(self._attempts)))

    def take(self, run_id: str) -> Attempt | None:
        attempt = self._attempts.pop(run_id, None)
        self._size -= attempt.size if attempt else 0
        return attempt
