"""The files of a thread's sandbox, down and up."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

from trunkline.aio.resource import AsyncResource
from trunkline.models import JSON, FileListing, FileWritten
from trunkline.requests import at, file_at

ARCHIVE = {"archive": "tar.gz"}


class AsyncFiles(AsyncResource):
    """Paths are relative to /workspace. An `archive` is a folder as tar.gz."""

    async def list(self, thread_id: str, path: str = "", *, depth: int = 1) -> FileListing:
        """Of a sandbox that does not exist yet, none."""
        return await self._http.get(FileListing, at("agent", thread_id, "files"), {"path": path, "depth": depth})

    async def read(self, thread_id: str, path: str, *, archive: bool = False) -> bytes:
        """A whole file, in memory."""
        return b"".join([piece async for piece in self.pieces(thread_id, path, archive=archive)])

    def pieces(self, thread_id: str, path: str, *, archive: bool = False) -> AsyncGenerator[bytes]:
        """A file as it comes. ConnectionLost where it breaks off."""
        return self._http.download(file_at(thread_id, path), ARCHIVE if archive else {})

    async def download(self, thread_id: str, path: str, to: Path, *, archive: bool = False) -> int:
        """Writes it to `to`, which is there once all of it has come; gives its bytes."""
        part = to.with_name(f".{to.name}.part")
        size = 0
        try:
            with part.open("wb") as file:
                async with aclosing(self.pieces(thread_id, path, archive=archive)) as pieces:
                    async for piece in pieces:
                        size += file.write(piece)
            part.replace(to)
        finally:
            part.unlink(missing_ok=True)
        return size

    async def write(
        self,
        thread_id: str,
        path: str,
        content: bytes | Path,
        *,
        archive: bool = False,
        expect: str | None = None,
    ) -> FileWritten:
        """Writes a file, or unpacks an archive into a folder; all of it or nothing.

        `expect`: the sha256 that the file should have by now, "*": one that is there; else PreconditionFailed.
        """
        headers: JSON = {"content-type": "application/octet-stream"}
        if expect is not None:
            headers["if-match"] = expect if expect == "*" else f'"{expect}"'
        params = ARCHIVE if archive else {}
        return await self._http.put(
            FileWritten, file_at(thread_id, path), content=content, params=params, headers=headers
        )
