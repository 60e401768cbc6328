"""Runs one task from nothing: starts a stack unless one runs on the data folder, and stops what it started."""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from scripts.stack.banner import command, relative
from scripts.stack.errors import StackError
from scripts.stack.folder import DataFolder
from scripts.stack.service import CHILD
from shared.secrets import mask_secrets
from trunkline import Run, Trunkline, TrunklineError
from trunkline.locate import locate

START_SECONDS = 180
STOP_SECONDS = 90  # above what the supervisor may give its services together
INTERRUPTED = 130  # the shell's code for "ended by Ctrl-C"
UP = Path(__file__).absolute().parents[1] / "up"
READY = "Trunkline is ready"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/run", description=__doc__)
    parser.add_argument("task", help="what to do, in your own words")
    parser.add_argument("--data", type=Path, help="the data folder (./data)")
    parser.add_argument("--model", help='any LiteLLM model name, "demo", or "local": a small one on this machine')
    return parser.parse_args(arguments)


@contextmanager
def running_stack(folder: Path, model: str | None, console: Console) -> Iterator[bool]:
    """A stack on the data folder; gives whether it was started here. Raises StackError."""
    data = DataFolder(folder)
    if data.is_held():
        with console.status("Waiting for the Trunkline that is starting here ..."):
            _wait_for(lambda: data.url() is not None or not data.is_held())
    if data.is_held():
        yield False
        return
    log = data.logs / "up.log"
    command = [sys.executable, "-P", "-m", "scripts.stack", "--port", "0", "--data", str(folder)]
    command += ["--model", model] if model else []
    # If this is killed, the stack stops by itself. It does not hear Ctrl-C, which is for the run.
    guard = [sys.executable, "-I", "-S", str(CHILD), str(int(signal.SIGTERM)), str(os.getpid())]
    with log.open("wb") as output:
        stack = subprocess.Popen([*guard, *command], stdout=output, stderr=output, start_new_session=True)
    try:
        with console.status("Starting Trunkline ..."):
            _until_ready(stack, log)
        yield True
    finally:
        stop(stack, log)


def stop(stack: "subprocess.Popen[bytes]", log: Path) -> None:
    """Waits until it has stopped. Raises StackError when that took too long and it was killed."""
    stack.terminate()
    try:
        stack.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        stack.kill()
        stack.wait()
        raise StackError(
            f"Trunkline did not stop within {STOP_SECONDS} s and was killed. Nothing that it has told you is lost. "
            f"What held it up may stand in {log}."
        ) from None


def _until_ready(stack: "subprocess.Popen[bytes]", log: Path) -> None:
    _wait_for(lambda: READY in log.read_text(errors="replace") or stack.poll() is not None)
    if stack.poll() is not None:
        last = "".join(log.read_text(errors="replace").splitlines(keepends=True)[-20:])
        raise StackError(f"Trunkline did not start. From {log}:\n{last}")


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise StackError(f"Trunkline was not ready after {START_SECONDS} s.")
        time.sleep(0.05)


def run_task(client: Trunkline, folder: Path, task: str) -> tuple[int, Run | None]:
    """Runs the task with the command line that a person would use. Returns its exit code, and the run if there is one.

    There is none where the server refused the task; the command has said why.
    """
    thread = client.threads.initiate()
    program = [str(Path(sys.executable).with_name("trunkline")), "run", task, "--thread", thread.id]
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C reaches the command too, which knows what to do with it
    code = subprocess.run([*program, "--data", str(folder)], check=False).returncode
    return code, next(client.threads.runs(thread.id), None)


def go_on(console: Console, folder: Path, run: Run, *, started: bool) -> None:
    option = "" if relative(folder) == Path("data") else f" --data {relative(folder)}"
    rows = [
        ("its files", str(relative(folder) / "workspaces" / run.thread_id)),
        ("to go on", f"{relative(UP)}{option}" if started else "Trunkline runs already"),
        ("then", f'{command("run", folder)} --thread {run.thread_id} "and now ..."'),
        ("or", f"{command('logs', folder)} {run.id}"),
    ]
    console.print()
    for name, text in rows:
        console.print(f"  [dim]{name:<11}[/]{text}", soft_wrap=True, highlight=False)


def main() -> int:
    options = parse()
    folder = (options.data or Path(os.environ.get("TRUNKLINE__DATA", "data"))).absolute()
    console = Console(stderr=True)
    try:
        with running_stack(folder, options.model, console) as started:
            server = locate(None, None, folder, {})
            with Trunkline(server.url, server.key) as client:
                code, run = run_task(client, folder, options.task)
            if run is not None:
                go_on(console, folder, run, started=started)
    except (StackError, TrunklineError) as error:
        print(mask_secrets(str(error)), file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # before the task began: from then on Ctrl-C is the command's
        return INTERRUPTED
    return code


if __name__ == "__main__":
    sys.exit(main())
