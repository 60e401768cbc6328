"""How the sandbox host and sandboxd talk: JSON with bytes behind it, each frame with its lengths in front.

    4 bytes: length of the JSON | 4 bytes: length of the data | JSON object | data

Both sides use this file, and it also runs inside the sandbox: the standard library only, and nothing newer than
Python 3.9. What comes out of a sandbox is untrusted: a frame that breaks a rule is an error, never a guess.
"""

from __future__ import annotations

import json
import struct

TYPE_CHECKING = False  # importing typing would cost every cold start 4 ms
if TYPE_CHECKING:
    from typing import Any

MAX_JSON = 1024 * 1024
MAX_DATA = 1024 * 1024
_LENGTHS = struct.Struct(">II")


class FrameError(Exception):
    """The other side does not keep to the protocol."""


def encode(message: dict[str, Any], data: bytes | memoryview = b"") -> bytes:
    """Raises FrameError when it is too long to be taken at the other end."""
    text = json.dumps(message, separators=(",", ":")).encode()
    if len(text) > MAX_JSON or len(data) > MAX_DATA:
        raise FrameError(f"a frame of {len(text)} + {len(data)} bytes is too long")
    return b"".join((_LENGTHS.pack(len(text), len(data)), text, data))


class Decoder:
    """Cuts a byte stream into frames. It never holds more than one frame and one feed."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, chunk: bytes) -> list[tuple[dict[str, Any], bytes]]:
        """The frames that `chunk` completes. Raises FrameError; after that the stream is of no more use."""
        self._buffer += chunk
        frames = []
        start = 0
        while len(self._buffer) - start >= _LENGTHS.size:
            text_length, data_length = _LENGTHS.unpack_from(self._buffer, start)
            if text_length > MAX_JSON or data_length > MAX_DATA:
                raise FrameError(f"a frame of {text_length} + {data_length} bytes is too long")
            text_start = start + _LENGTHS.size
            data_start = text_start + text_length
            end = data_start + data_length
            if len(self._buffer) < end:
                break
            frames.append((_parse(self._buffer[text_start:data_start]), bytes(self._buffer[data_start:end])))
            start = end
        del self._buffer[:start]
        return frames


def _parse(text: bytearray) -> dict[str, Any]:
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FrameError("a frame is not JSON") from error
    if not isinstance(message, dict):
        raise FrameError("a frame is not a JSON object")
    return message
