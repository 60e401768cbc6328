"""Blobs as files: `AB/THREAD/SHA256.UPLOAD`, where AB is the thread's shard."""

import asyncio
import os
from pathlib import Path

from shared.payloads.blobs import Lost, Ref, StoreAway


class FolderBlobs:
    """In a folder that is made when it is needed. A file is there whole and on disk, or not at all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def put(self, ref: Ref, data: bytes) -> None:
        try:
            await asyncio.to_thread(_write, self._folder / ref.path, data)
        except OSError as error:
            raise StoreAway(ref.store, error) from error

    async def get(self, ref: Ref) -> bytes:
        try:
            return await asyncio.to_thread((self._folder / ref.path).read_bytes)
        except FileNotFoundError as error:
            raise Lost(ref, f"is not in {self._folder} any more") from error
        except OSError as error:
            raise StoreAway(ref.store, error) from error

    async def delete(self, ref: Ref) -> None:
        try:
            await asyncio.to_thread(_delete, self._folder / ref.path)
        except OSError as error:
            raise StoreAway(ref.store, error) from error

    async def close(self) -> None:
        """Nothing is open."""


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(os.open(_part(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    _part(path).replace(path)
    for folder in (path.parent, path.parent.parent):  # the names too must be on disk before a run gives them
        _sync(folder)


def _delete(path: Path) -> None:
    path.unlink(missing_ok=True)
    _part(path).unlink(missing_ok=True)


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
