"""Which port of which sandbox a request is for, and what of its headers is for the server there."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from shared.config import ApiSettings
from shared.ids import ALPHABET
from shared.links import wildcard

_LABEL = re.compile(rf"([1-9][0-9]{{0,4}})-([{ALPHABET}]{{26}})\.(.+?)(?::[0-9]{{1,5}})?")
_HOP_BY_HOP = frozenset(
    (
        *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection"),
        *(b"te", b"trailer", b"transfer-encoding", b"upgrade"),
    )
)
_OURS = (b"trunkline_", b"__host-trunkline_")
"""What the names of our cookies begin with; no sandbox sees or sets one."""
_NOT_FOR_SANDBOXES = frozenset((b"authorization", b"cookie", b"x-api-key", b"forwarded"))

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Place:
    sandbox: str
    port: int


def find(settings: ApiSettings, host: str) -> Place | None:
    """The place that a Host header names; None where it names none of a sandbox."""
    match = _LABEL.fullmatch(host.lower())
    if match is None or match[3] not in ("localhost", (urlsplit(wildcard(settings)).hostname or "").removeprefix("*.")):
        return None
    return Place(match[2], int(match[1])) if int(match[1]) <= 65535 else None


def inward(headers: Headers, scheme: str, own: Headers) -> Headers:
    """Of a request: neither credentials, nor what is between the client and us alone. `own` takes the place of its own.

    A page's own Origin follows the Host, so that servers which compare the two go on doing so.
    """
    kept = [(name, value) for name, value in _end_to_end(headers) if name not in _NOT_FOR_SANDBOXES]
    kept = [(name, value) for name, value in kept if not name.startswith(b"x-forwarded-")]
    host = next((value for name, value in kept if name == b"host"), b"")
    cookies = [_foreign(value) for name, value in headers if name == b"cookie"]
    kept += [(b"cookie", value) for value in cookies if value]
    replaced = dict(own)
    if there := replaced.get(b"host"):
        kept = [(name, _moved(value, host, there) if name == b"origin" else value) for name, value in kept]
    kept = [*((name, value) for name, value in kept if name not in replaced), *own]
    return [*kept, (b"x-forwarded-host", host), (b"x-forwarded-proto", scheme.encode())]


def _moved(origin: bytes, host: bytes, there: bytes) -> bytes:
    scheme, _, named = origin.partition(b"://")
    return scheme + b"://" + there if named.lower() == host.lower() else origin


def outward(headers: Headers, asked: Headers, own: Headers) -> Headers:
    """Of an answer: not what would be a cookie of ours. The server that sends it on dates it.

    `asked`: the client's headers, `own`: what took the place of its own. A redirection to where the server believes to
    be leads to where it is for the client.
    """
    kept = [(name.lower(), value) for name, value in headers]
    host, there = dict(asked).get(b"host", b""), dict(own).get(b"host")
    kept = [(name, _led_back(value, there, host) if there and name == b"location" else value) for name, value in kept]
    return [
        (name, value)
        for name, value in _end_to_end(kept)
        if name != b"date" and not (name == b"set-cookie" and value.lower().lstrip().startswith(_OURS))
    ]


def _led_back(location: bytes, there: bytes, host: bytes) -> bytes:
    named, slash, rest = location.partition(b"://")[2].partition(b"/")
    return b"//" + host + slash + rest if named.lower() == there.lower() else location


def _end_to_end(headers: Headers) -> Headers:
    named = b",".join(value for name, value in headers if name == b"connection").lower()
    dropped = _HOP_BY_HOP | {name.strip() for name in named.split(b",")}
    return [(name, value) for name, value in headers if name not in dropped]


def _foreign(cookies: bytes) -> bytes:
    pairs: Iterable[bytes] = (pair.strip() for pair in cookies.split(b";"))
    return b"; ".join(pair for pair in pairs if not pair.lower().startswith(_OURS))
