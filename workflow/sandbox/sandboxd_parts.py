"""Long transfers of a remote machine: the program that moves files (sandboxd_transfer.py), from parts and to parts.

A machine takes and gives whole files only, so what is long goes in several, all in one folder; those of one transfer
bear its name. Runs inside the machine: standard library only, nothing newer than Python 3.9.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import sys
import time

TYPE_CHECKING = False  # importing typing would cost every request 4 ms
if TYPE_CHECKING:
    from typing import IO, Any

    JSON = dict[str, Any]

PART_BYTES = 8 * 1024 * 1024
INLINE_BYTES = 128 * 1024  # of what comes out, in the answer itself
KEPT_SECONDS = 3600  # parts of a transfer that broke off


def transfer(folder: str, name: str, parts: int, request: JSON, rest: bytes) -> JSON:
    """What the program answers to so many parts and the `rest`: itself, or the sizes of its parts.

    Asked for again, it does the same again, from the same parts. Raises FileNotFoundError where one is missing.
    """
    import subprocess  # noqa: PLC0415 - loading it would cost every request 4 ms

    forget(folder)
    given = [_path(folder, name, "in", number) for number in range(parts)]
    for path in given:
        os.stat(path)
    last = _path(folder, name, "in", parts)
    _write(last, rest)
    command = [sys.executable, "-I", "-S", sys.argv[0], "transfer", json.dumps(request)]
    with (
        subprocess.Popen(["cat", *given, last], stdout=subprocess.PIPE) as source,
        subprocess.Popen(command, stdin=source.stdout, stdout=subprocess.PIPE) as program,
    ):
        assert source.stdout
        assert program.stdout
        source.stdout.close()  # with the program's end, `cat` ends
        answer = _answer(folder, name, program.stdout)
    os.unlink(last)
    return answer


def _answer(folder: str, name: str, output: IO[bytes]) -> JSON:
    piece = output.read(PART_BYTES)
    if len(piece) <= INLINE_BYTES:
        return {"content": base64.b64encode(piece).decode(), "sizes": []}
    sizes: list[int] = []
    while piece:
        _write(_path(folder, name, "out", len(sizes)), piece)
        sizes.append(len(piece))
        piece = output.read(PART_BYTES)
    return {"sizes": sizes}


def forget(folder: str, name: str = "") -> None:
    """The parts of that transfer, and those that nobody came for."""
    for entry in list(os.scandir(folder)):
        with contextlib.suppress(FileNotFoundError):
            if entry.name.split(".")[0] == name or entry.stat().st_mtime < time.time() - KEPT_SECONDS:
                os.unlink(entry.path)


def _path(folder: str, name: str, way: str, number: int) -> str:
    return os.path.join(folder, f"{name}.{way}.{number}")


def _write(path: str, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
