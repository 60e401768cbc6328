"""The form of an API key: `tl_`, 32 random characters, `_`, and eight that check them.

The check finds typing errors and cut-off copies before anybody is asked; it keeps nothing secret.
"""

import hashlib
import re
import secrets
import zlib

from shared.ids import ALPHABET

RANDOM_CHARS = 32  # of five bits each
SHOWN_CHARS = len("tl_") + 8
"""What of a key is kept in the clear, so that its owner can tell which one it is."""

_KEY = re.compile(rf"(tl_[{ALPHABET}]{{{RANDOM_CHARS}}})_([0-9a-f]{{8}})")


def new_key() -> str:
    return checked("tl_" + "".join(secrets.choice(ALPHABET) for _ in range(RANDOM_CHARS)))


def checked(body: str) -> str:
    """A key's first part with its check."""
    return f"{body}_{zlib.crc32(body.encode()):08x}"


def is_key(text: str) -> bool:
    """Whether it has a key's form, and its check is right."""
    match = _KEY.fullmatch(text)
    return match is not None and checked(match[1]) == text


def shown(key: str) -> str:
    return key[:SHOWN_CHARS]


def digest(key: str) -> bytes:
    """What is stored of a key. A key is random enough for a fast hash."""
    return hashlib.sha256(key.encode()).digest()
