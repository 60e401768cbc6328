"""What requests have in common: paths, bodies, keys. Does no I/O."""

import uuid
from typing import Any
from urllib.parse import quote

from trunkline.errors import InvalidRequest
from trunkline.models import JSON

NO_NAMES = ("", ".", "..")


def at(*parts: str | int) -> str:
    """The path of a resource. Raises InvalidRequest where an id could not be one: an empty one would name the list."""
    for part in parts:
        if part in NO_NAMES:
            raise _invalid(f"{part!r} is no id.")
    return "/".join(["/api", *(quote(str(part), safe="") for part in parts)])


def file_at(thread_id: str, path: str) -> str:
    """Raises InvalidRequest where the path leads out of the workspace, or nowhere."""
    parts = path.split("/")
    if any(part in NO_NAMES for part in parts):
        raise _invalid(f"{path!r} is no path below the workspace.")
    return "/".join([at("agent", thread_id, "files"), *(quote(part, safe="") for part in parts)])


def _invalid(detail: str) -> InvalidRequest:
    return InvalidRequest({"code": "invalid_request", "detail": detail})


def given(**fields: Any) -> JSON:
    """Those that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


def new_key() -> str:
    """An Idempotency-Key."""
    return str(uuid.uuid4())


def if_match(version: int | None) -> dict[str, str]:
    """The header with which a change is refused where the row has another version by now."""
    return {} if version is None else {"if-match": f'"{version}"'}
