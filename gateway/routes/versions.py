"""Changes that lose none of another's: `ETag` out, `If-Match` or `expected_version` in."""

import re
from typing import Annotated

from fastapi import Header
from starlette.responses import Response

from gateway.errors import invalid
from gateway.patterns import ENTITY_TAG, looks_like
from shared.errors import FieldError

IfMatch = Annotated[
    Annotated[str, looks_like(ENTITY_TAG)] | None,
    Header(alias="If-Match", description="The `ETag` that was read; 409 where it is another one by now."),
]


def expected_version(if_match: str | None, version: int | None = None) -> int | None:
    """`version`: what the body expects, which counts first. None: any. Raises AppError INVALID_REQUEST."""
    text = "*" if if_match is None else if_match.strip()
    if not re.match(ENTITY_TAG, text):
        detail = 'should be an ETag as it was given, such as "3"'
        raise invalid([FieldError(place="header.If-Match", detail=detail)])
    if version is not None or text == "*":
        return version
    return int(text.removeprefix("W/").strip('"'))


def tag(response: Response, version: int) -> None:
    response.headers["ETag"] = f'"{version}"'
