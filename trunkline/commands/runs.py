"""Runs: begun, looked at, followed, ended, begun again."""

import itertools
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from trunkline.commands.common import AsJson, Limit, RunId, ThreadId, show_rows
from trunkline.commands.following import follow_run, follow_thread
from trunkline.models import Run
from trunkline.sync.client import Trunkline

ModelName = Annotated[str | None, typer.Option("--model", "-m", help="A LiteLLM model name; else the server's.")]


def run(
    client: Trunkline,
    task: Annotated[str, typer.Argument(help='What to do; "-" reads it from standard input.')],
    thread: Annotated[str | None, typer.Option("--thread", "-t", help="Go on in this thread; else a new one.")] = None,
    model: ModelName = None,
    as_json: AsJson = False,
) -> int:
    """Run a task and follow it to its end. Exit code 0 if the run succeeded, else 1.

    Ctrl-C cancels the run; Ctrl-C again leaves it.
    """
    if task == "-":
        task = sys.stdin.read()
    thread_id = thread or client.threads.initiate().id
    started = client.threads.execute(thread_id, task, parameters={"model": model} if model else None)
    return follow_run(client, started.id, as_json=as_json, cancel=True)


def logs(client: Trunkline, run_id: RunId, as_json: AsJson = False) -> int:
    """Show what a run did, from its start, and follow it while it goes on. Exit code as of `run`."""
    client.runs.get(run_id)
    return follow_run(client, run_id, as_json=as_json, cancel=False)


def follow(
    client: Trunkline,
    thread_id: ThreadId,
    after: Annotated[str | None, typer.Option(help="The id of an event: only what comes after it.")] = None,
    as_json: AsJson = False,
) -> int:
    """Show what happens in a thread, from its start, until Ctrl-C."""
    return follow_thread(client, thread_id, as_json=as_json, last_id=after)


def threads(client: Trunkline, limit: Limit = 20, as_json: AsJson = False) -> None:
    """List threads, newest first."""
    found = list(itertools.islice(client.threads.list(), limit))
    rows = (
        {"thread": each.id, "created": each.created_at, "status": each.status, "current run": each.current_run_id}
        for each in found
    )
    show_rows(found, rows, as_json=as_json, none='No threads yet. Make one: trunkline run "what to do"')


def runs(
    client: Trunkline,
    thread_id: ThreadId,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """List a thread's runs, oldest first."""
    found = list(itertools.islice(client.threads.runs(thread_id), limit))
    rows = ({"run": each.id, "created": each.created_at, "status": each.status, "task": _task(each)} for each in found)
    show_rows(found, rows, as_json=as_json, none="No runs yet.")


def cancel(
    client: Trunkline,
    id: Annotated[str, typer.Argument(metavar="RUN|THREAD", help="A run; or a thread, for all under way in it.")],
    as_json: AsJson = False,
) -> None:
    """Ask for the end of a run, or of all that is under way in a thread."""
    canceled = [client.runs.cancel(id)] if "." in id else client.threads.cancel(id)
    _tell(canceled, as_json=as_json)


def retry(client: Trunkline, run_id: RunId, as_json: AsJson = False) -> int:
    """Begin a failed run anew after its last finished step, and follow it. Exit code as of `run`."""
    return follow_run(client, client.runs.retry(run_id).id, as_json=as_json, cancel=True)


def _tell(runs: Sequence[Run], *, as_json: bool) -> None:
    rows = ({"run": run.id, "status": run.status, "": "ends soon" if not run.ended else ""} for run in runs)
    show_rows(runs, rows, as_json=as_json, none="Nothing is under way there.")


def _task(run: Run) -> str:
    text = str(run.input.get("task") or run.input.get("input") or "") if isinstance(run.input, dict) else ""
    first, *more = text.strip().split("\n")
    return first[:60] + (" …" if more or len(first) > 60 else "")
