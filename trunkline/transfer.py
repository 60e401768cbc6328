"""Files of this machine in pieces, for both clients."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

CHUNK_BYTES = 1 << 18


def chunks_of(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


async def async_chunks_of(path: Path) -> AsyncIterator[bytes]:
    """Read in a thread, so that a slow disk holds up nothing else."""
    file = await asyncio.to_thread(path.open, "rb")
    with file:
        while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield chunk
