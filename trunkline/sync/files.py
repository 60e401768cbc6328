# Made by scripts/client_sync.py from trunkline/aio: change that.
"""The files of a thread's sandbox, down and up."""

from collections.abc import Generator
from contextlib import closing
from pathlib import Path

from trunkline.models import JSON, FileListing, FileWritten
from trunkline.requests import at, file_at
from trunkline.sync.resource import Resource

ARCHIVE = {"archive": "tar.gz"}


class Files(Resource):
    """Paths are relative to /workspace. An `archive` is a folder as tar.gz."""

    def list(self, thread_id: str, path: str = "", *, depth: int = 1) -> FileListing:
        """Of a sandbox that does not exist yet, none."""
        return self._http.get(FileListing, at("agent", thread_id, "files"), {"path": path, "depth": depth})

    def read(self, thread_id: str, path: str, *, archive: bool = False) -> bytes:
        """A whole file, in memory."""
        return b"".join(list(self.pieces(thread_id, path, archive=archive)))

    def pieces(self, thread_id: str, path: str, *, archive: bool = False) -> Generator[bytes]:
        """A file as it comes. ConnectionLost where it breaks off."""
        return self._http.download(file_at(thread_id, path), ARCHIVE if archive else {})

    def download(self, thread_id: str, path: str, to: Path, *, archive: bool = False) -> int:
        """Writes it to `to`, which is there once all of it has come; gives its bytes."""
        part = to.with_name(f".{to.name}.part")
        size = 0
        try:
            with part.open("wb") as file, closing(self.pieces(thread_id, path, archive=archive)) as pieces:
                for piece in pieces:
                    size += file.write(piece)
            part.replace(to)
        finally:
            part.unlink(missing_ok=True)
        return size

    def write(
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
        return self._http.put(FileWritten, file_at(thread_id, path), content=content, params=params, headers=headers)
