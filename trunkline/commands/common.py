"""What the commands share: the server's options, tables or JSON, errors in a line."""

import contextlib
import inspect
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from trunkline.errors import ConnectionLost, TrunklineError
from trunkline.locate import locate
from trunkline.models import Model
from trunkline.show import clean
from trunkline.sync.client import Trunkline

Url = Annotated[str | None, typer.Option("--url", help="The server. Else TRUNKLINE_URL, else the data folder's.")]
Key = Annotated[str | None, typer.Option("--key", help="The API key. Else TRUNKLINE_API_KEY, else the data folder's.")]
Data = Annotated[Path | None, typer.Option("--data", help="The data folder of scripts/up. Default: ./data")]
SERVER: dict[str, Any] = {"url": Url, "key": Key, "data": Data}
AsJson = Annotated[bool, typer.Option("--json", help="JSON, one item a line, for machines.")]
Limit = Annotated[int, typer.Option(min=1, help="At most so many.")]
ThreadId = Annotated[str, typer.Argument(metavar="THREAD", help="The thread's id.")]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="The run's id, as `run` and `runs` show it.")]
StepId = Annotated[str, typer.Argument(metavar="STEP", help="The step's id, as `approvals` shows it.")]


def add(app: typer.Typer, command: Callable[..., int | None], name: str | None = None) -> None:
    """A command that takes a client first: the options that name its server are added. It may return an exit code."""

    def run(**options: Any) -> None:
        server = [options.pop(name) for name in SERVER]
        with connected(*server) as client:
            if code := command(client, **options):
                raise typer.Exit(code)

    _, *own = inspect.signature(command).parameters.values()
    keyword = inspect.Parameter.KEYWORD_ONLY
    added = [inspect.Parameter(name, keyword, default=None, annotation=kind) for name, kind in SERVER.items()]
    parameters = [*(parameter.replace(kind=keyword) for parameter in own), *added]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__doc__ = command.__doc__
    app.command(name or command.__name__)(run)


@contextlib.contextmanager
def connected(url: str | None, key: str | None, data: Path | None) -> Iterator[Trunkline]:
    """A client of the server that the options or the environment name. An error becomes a line and exit code 1."""
    try:
        server = locate(url, key, data, os.environ)
        with Trunkline(server.url, server.key) as client:
            yield client
    except (TrunklineError, OSError) as error:
        text = Text("Error: ", "red") + Text(clean(str(error)), "default")
        if isinstance(error, ConnectionLost):
            text += Text(" Does it still run? scripts/up starts it.", "default")
        Console(stderr=True).print(text, soft_wrap=True)
        raise typer.Exit(1) from error


def show_json(item: Model) -> None:
    print(json.dumps(item.to_json()), flush=True)  # noqa: T201 - for machines


def show_rows(items: Iterable[Model], rows: Iterable[Mapping[str, Any]], *, as_json: bool, none: str) -> None:
    """A table with a column for each name in `rows`; or `items` as JSON. `none`: what to say where there are none."""
    if as_json:
        for item in items:
            show_json(item)
        return
    table: Table | None = None
    for row in rows:
        if table is None:
            table = Table(*row, box=None, pad_edge=False, header_style="bold")
        table.add_row(*(Text(clean(_cell(value))) for value in row.values()))
    Console().print(table or Text(none))


def parsed(text: str) -> Any:
    """JSON; what is none is a string. A number is a number, so a text that looks like one wants its quotes."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _cell(value: Any) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
    return "" if value is None else str(value)
