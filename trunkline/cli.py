"""The command line: `trunkline run "task"`, `trunkline threads`, `trunkline logs RUN`."""

import contextlib
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from trunkline.client import Client
from trunkline.errors import ConnectionLostError, TrunklineError
from trunkline.locate import locate
from trunkline.models import TERMINAL, Event
from trunkline.show import Progress, clean

PATIENCE_SECONDS = 120.0
LEFT = 130  # the shell's code for "ended by Ctrl-C"

app = typer.Typer(
    help="Run tasks with an agent on a Trunkline server, and look at what it did.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Url = Annotated[str | None, typer.Option("--url", help="The server. Else TRUNKLINE_URL, else the data folder's.")]
Key = Annotated[str | None, typer.Option("--key", help="The API key. Else TRUNKLINE_API_KEY, else the data folder's.")]
Data = Annotated[Path | None, typer.Option("--data", help="The data folder of scripts/up. Default: ./data")]
AsJson = Annotated[bool, typer.Option("--json", help="One event a line as JSON, for machines.")]


@app.command()
def run(
    task: Annotated[str, typer.Argument(help='What to do; "-" reads it from standard input.')],
    *,
    thread: Annotated[str | None, typer.Option("--thread", "-t", help="Go on in this thread; else a new one.")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="A LiteLLM model name; else the server's.")] = None,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
    data: Data = None,
) -> None:
    """Run a task and follow it to its end. Exit code 0 if the run succeeded, else 1.

    Ctrl-C cancels the run; Ctrl-C again leaves it.
    """
    if task == "-":
        task = sys.stdin.read()
    with _client(url, key, data) as client:
        thread_id = thread or client.threads.create().id
        started = client.threads.execute(thread_id, task, parameters={"model": model} if model else None)
        raise typer.Exit(_follow(client, started.id, as_json=as_json))


@app.command()
def logs(
    run_id: Annotated[str, typer.Argument(help="The run's id, as `trunkline run` and `trunkline threads` show it.")],
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
    data: Data = None,
) -> None:
    """Show what a run did, from its start, and follow it while it goes on. Exit code as of `run`."""
    with _client(url, key, data) as client:
        client.runs.get(run_id)
        raise typer.Exit(_follow(client, run_id, as_json=as_json, cancel=False))


@app.command()
def threads(
    limit: Annotated[int, typer.Option(min=1, help="At most so many, newest first.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="One thread a line as JSON.")] = False,
    url: Url = None,
    key: Key = None,
    data: Data = None,
) -> None:
    """List threads, newest first."""
    with _client(url, key, data) as client:
        found = list(itertools.islice(client.threads.list(), limit))
    if as_json:
        for thread in found:
            print(json.dumps(thread.raw))  # noqa: T201 - for machines
        return
    table = Table("thread", "created", "status", "current run", box=None, pad_edge=False, header_style="bold")
    for thread in found:
        created = thread.created_at[:19].replace("T", " ")
        table.add_row(thread.id, created, thread.status, thread.raw.get("current_run_id") or "")
    Console().print(table if found else 'No threads yet. Make one: trunkline run "what to do"')


@contextlib.contextmanager
def _client(url: str | None, key: str | None, data: Path | None) -> Iterator[Client]:
    try:
        server = locate(url, key, data, os.environ)
        with Client(server.url, server.key) as client:
            yield client
    except TrunklineError as error:
        text = Text("Error: ", "red") + Text(clean(str(error)), "default")
        if isinstance(error, ConnectionLostError):
            text += Text(" Does it still run? scripts/up starts it.", "default")
        Console(stderr=True).print(text, soft_wrap=True)
        raise typer.Exit(1) from error


def _follow(client: Client, run_id: str, *, as_json: bool, cancel: bool = True) -> int:
    """Shows a run to its end. Returns the exit code."""
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # a terminal that knows no "✓"
    console = Console(highlight=False, stderr=as_json)
    progress = Progress(console)
    if not as_json:
        console.print(f"run {run_id}", style="dim", soft_wrap=True)
    follower = Follower(client, run_id, _print_json if as_json else progress.show, progress.note)
    try:
        return follower.to_the_end(cancel=cancel)
    finally:
        progress.close()


class Follower:
    """Hands a run's events to `show`. `note` is told what happens to the connection."""

    def __init__(self, client: Client, run_id: str, show: Callable[[Event], None], note: Callable[[str], None]) -> None:
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
        events = self._client.runs.events(
            self._run_id, last_id=self._last_id, patience_seconds=PATIENCE_SECONDS, on_drop=self._dropped
        )
        for event in events:
            self._last_id = event.id
            self._show(event)
            status = TERMINAL.get(event.type, status)
        return 0 if status == "succeeded" else 1

    def _dropped(self, reason: str) -> None:
        self._note(f"connection lost ({reason}); trying again")


def _print_json(event: Event) -> None:
    print(json.dumps({"id": event.id, **event.raw}), flush=True)  # noqa: T201 - for machines
