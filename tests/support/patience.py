"""A bound on work that is far above what it takes, and far below what it would take if it grew with the square."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SECONDS = 20.0


@contextmanager
def in_bounded_time(seconds: float = SECONDS) -> Iterator[None]:
    """For the main thread: interrupts what is not done by then."""

    def late(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"it was not done after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
