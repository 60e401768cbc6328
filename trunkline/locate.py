"""Where the server is and which key opens it: from options, the environment, or the data folder of `scripts/up`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from trunkline.errors import ServerNotFound

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Server:
    url: str
    key: str | None


def locate(url: str | None, key: str | None, data: Path | None, environment: Mapping[str, str]) -> Server:
    """Raises ServerNotFound. A key from the data folder is sent to this machine only."""
    folder = data or Path(environment.get("TRUNKLINE__DATA", "data"))
    url = url or environment.get("TRUNKLINE_URL") or running_in(folder)
    key = key or environment.get("TRUNKLINE_API_KEY")
    if url is None:
        raise ServerNotFound(
            f"No Trunkline runs on the data folder {folder}. Start one with scripts/up, or say where one is: "
            "TRUNKLINE_URL and TRUNKLINE_API_KEY, or --url and --key."
        )
    if key is None and urlsplit(url).hostname in LOOPBACK:
        key = _read(folder / "key")
    return Server(url, key)


def running_in(folder: Path) -> str | None:
    """The URL that the stack on this data folder wrote down; it removes the file when it stops."""
    text = _read(folder / "run" / "gateway.json")
    return str(json.loads(text)["url"]) if text else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise ServerNotFound(
            f"{path} may not be read by you: it belongs to whoever started scripts/up there."
        ) from error
