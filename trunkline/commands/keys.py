"""API keys."""

from typing import Annotated

import typer

from trunkline.commands.common import AsJson, show_json, show_rows
from trunkline.sync.client import Trunkline


def list_keys(client: Trunkline, as_json: AsJson = False) -> None:
    """List them, without their secrets."""
    found = list(client.keys.list())
    rows = (
        {
            "key": each.id,
            "name": each.name,
            "prefix": each.prefix,
            "scopes": " ".join(each.scopes),
            "last used": each.last_used_at,
            "expires": each.expires_at,
        }
        for each in found
    )
    show_rows(found, rows, as_json=as_json, none="No keys.")


def create(
    client: Trunkline,
    name: Annotated[str, typer.Argument(help="To know it by.")],
    scope: Annotated[list[str] | None, typer.Option(help="read, run, write or admin; may be given again.")] = None,
) -> None:
    """Make one. Its secret is shown this once."""
    show_json(client.keys.create(name, scopes=scope))


def revoke(client: Trunkline, key_id: Annotated[str, typer.Argument(metavar="KEY")]) -> None:
    """End one, at once."""
    client.keys.revoke(key_id)
