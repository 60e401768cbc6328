"""A run or a thread on the terminal, while it goes on."""

import sys
from collections.abc import Callable

from rich.console import Console

from trunkline.commands.common import show_json
from trunkline.models import TERMINAL, Event
from trunkline.show import Progress
from trunkline.sync.client import Trunkline

LEFT = 130  # the shell's code for "ended by Ctrl-C"


def follow_run(client: Trunkline, run_id: str, *, as_json: bool, cancel: bool) -> int:
    """Shows a run to its end. Returns the exit code."""
    progress = Progress(_console(as_json))
    if not as_json:
        progress.head(f"run {run_id}")
    try:
        return Follower(client, run_id, show_json if as_json else progress.show, progress.note).to_the_end(
            cancel=cancel
        )
    finally:
        progress.close()


def follow_thread(client: Trunkline, thread_id: str, *, as_json: bool, last_id: str | None) -> int:
    """Shows what happens in a thread until Ctrl-C. Returns the exit code."""
    progress = Progress(_console(as_json))
    run_id: str | None = None
    try:
        for event in client.threads.stream(thread_id, last_id=last_id, on_drop=lambda why: progress.note(dropped(why))):
            if event.run_id != run_id and not as_json:
                run_id = event.run_id
                progress.head(f"run {run_id}")
            (show_json if as_json else progress.show)(event)
    except KeyboardInterrupt:
        return LEFT
    finally:
        progress.close()
    return 0


class Follower:
    """Hands a run's events to `show`. `note` is told what happens to the connection."""

    def __init__(
        self, client: Trunkline, run_id: str, show: Callable[[Event], None], note: Callable[[str], None]
    ) -> None:
        self._client = client
        self._run_id = run_id
        self._show = show
        self._note = note
        self._last_id: str | None = None

    def to_the_end(self, *, cancel: bool) -> int:
        """The exit code. `cancel`: whether Ctrl-C cancels the run (and a second one leaves it) or leaves at once."""
        try:
            return self._watch()
        except KeyboardInterrupt:
            if not cancel:
                return LEFT
        try:
            self._note("canceling the run; Ctrl-C again leaves it")
            self._client.runs.cancel(self._run_id)
            return self._watch()
        except KeyboardInterrupt:
            self._note(f"left; see what became of it with: trunkline logs {self._run_id}")
            return LEFT

    def _watch(self) -> int:
        status = "unknown"
        with self._client.runs.follow(
            self._run_id, last_id=self._last_id, on_drop=lambda why: self._note(dropped(why))
        ) as events:
            for event in events:
                self._last_id = event.id
                self._show(event)
                status = TERMINAL.get(event.type, status)
        return 0 if status == "succeeded" else 1


def dropped(reason: str) -> str:
    return f"connection lost ({reason}); trying again"


def _console(as_json: bool) -> Console:
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # a terminal that knows no "✓"
    return Console(highlight=False, stderr=as_json)
