"""What an event carries of its data: no stream is clogged by one large value."""

import heapq
from hashlib import sha256
from typing import Any

import orjson

from shared.payloads.blobs import shown
from shared.types import JSON

EVENT_BYTES = 65_536
"""Most that an event's data has, as JSON."""
FIELDS_LEFT_OUT = 8


def encode_brief(data: JSON) -> bytes:
    """The data as JSON. Where it is longer than EVENT_BYTES its longest fields are null, and `FIELD_ref` says of each
    what it was (`{sha256, bytes}` of its JSON); where even that is too long, there is `data_ref` alone."""
    encoded = orjson.dumps(data)
    if len(encoded) <= EVENT_BYTES:
        return encoded
    fields = {name: orjson.dumps(value) for name, value in data.items()}
    brief: dict[str, Any] = dict(data)
    for name in heapq.nlargest(FIELDS_LEFT_OUT, fields, key=lambda name: len(fields[name])):
        brief |= {name: None, f"{name}_ref": _reference(fields[name])}
        if len(short := orjson.dumps(brief)) <= EVENT_BYTES:
            return short
    return orjson.dumps({"data_ref": _reference(encoded)})


def _reference(encoded: bytes) -> JSON:
    return shown(sha256(encoded).hexdigest(), len(encoded))
