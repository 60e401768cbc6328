"""How texts look, for the API's description alone: whoever reads one says in better words what is wrong with it."""

from typing import Any

from pydantic import Field

NOT_BLANK = r"\S"
IDEMPOTENCY_KEY = r"^[\x21-\x7e]{1,255}$"
ENTITY_TAG = r'^(\*|(W/)?"?[0-9]{1,9}"?)$'
EVENT_ID = r"^([0-9]{1,15}-[0-9]{1,15})?$"


def looks_like(pattern: str) -> Any:
    """For Annotated."""
    return Field(json_schema_extra={"pattern": pattern})
