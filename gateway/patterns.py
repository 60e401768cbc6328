"""How texts look, for the API's description: whoever reads one says in better words what is wrong with it.

The same in JSON Schema's regular expressions and in Python's, whose `\\s` and `\\w` are not.
"""

import re
from typing import Any

from pydantic import Field

BLANKS = r"\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"
"""What is white space to one of them at least."""
NOT_BLANK = f"[^{BLANKS}]"
ONE_LINE = rf"^[^\x00-\x1f]*[^\x00-\x1f{BLANKS}][^\x00-\x1f]*$"
IDEMPOTENCY_KEY = r"^[\x21-\x7e]{1,255}$"
ENTITY_TAG = r'^(\*|(W/)?"?[0-9]{1,9}"?)$'
EVENT_ID = r"^([0-9]{1,15}-[0-9]{1,15})?$"


def looks_like(pattern: str) -> Any:
    """For Annotated."""
    return Field(json_schema_extra={"pattern": pattern})


def is_blank(text: str) -> bool:
    return re.search(NOT_BLANK, text) is None
