"""The files of a thread's sandbox."""

from pathlib import Path
from typing import Annotated

import typer

from trunkline.commands.common import AsJson, ThreadId, show_json, show_rows
from trunkline.sync.client import Trunkline

Remote = Annotated[str, typer.Argument(help="Relative to /workspace.")]


def list_files(
    client: Trunkline,
    thread_id: ThreadId,
    path: Remote = "",
    depth: Annotated[int, typer.Option(min=1, max=10, help="How many levels of folders.")] = 1,
    as_json: AsJson = False,
) -> None:
    """List a folder."""
    listing = client.threads.files.list(thread_id, path, depth=depth)
    rows = (
        {"path": each.path + ("/" if each.kind == "directory" else ""), "bytes": each.size, "at": each.modified_at}
        for each in listing.entries
    )
    show_rows(listing.entries, rows, as_json=as_json, none="No files.")
    if listing.truncated:
        typer.echo("There are more: list a folder of it.", err=True)


def get(
    client: Trunkline,
    thread_id: ThreadId,
    path: Remote,
    to: Annotated[Path | None, typer.Argument(help="Default: its name, in this folder.")] = None,
    archive: Annotated[bool, typer.Option("--archive", help="A whole folder, as tar.gz.")] = False,
) -> None:
    """Fetch a file."""
    name = path.rstrip("/").rpartition("/")[2] + (".tar.gz" if archive else "")
    target = Path(name) if to is None else to / name if to.is_dir() else to
    size = client.threads.files.download(thread_id, path, target, archive=archive)
    typer.echo(f"{target}  {size} bytes")


def put(
    client: Trunkline,
    thread_id: ThreadId,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="What to send.")],
    path: Annotated[str | None, typer.Argument(help="Relative to /workspace. Default: its name.")] = None,
    as_json: AsJson = False,
) -> None:
    """Send a file."""
    written = client.threads.files.write(thread_id, path or file.name, file)
    show_json(written) if as_json else typer.echo(f"{written.path}  {written.size} bytes")
