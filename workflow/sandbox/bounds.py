"""What no sandbox does at once, whoever provides it."""

from collections.abc import Sequence

from workflow.sandbox.base import MAX_COMMAND_BYTES, MAX_READ_BYTES, MAX_WRITE_BYTES, Command, FileWrite, SandboxRefused

MAX_NOTE_BYTES = 1024**2
MAX_DEPTH = 10
MAX_ENTRIES = 2000


def check_command(command: Command) -> None:
    """Raises SandboxRefused for one that no shell takes."""
    if len(command.command.encode(errors="surrogatepass")) > MAX_COMMAND_BYTES:
        raise SandboxRefused(f"the command is longer than {MAX_COMMAND_BYTES} bytes: write it to a file and run that")
    if "\0" in command.command or any("\0" in text for item in command.env.items() for text in item):
        raise SandboxRefused("a command cannot contain a NUL character")


def check_write(files: Sequence[FileWrite], note: bytes) -> None:
    """Raises SandboxRefused for too much at once."""
    if sum(len(file.content) for file in files) > MAX_WRITE_BYTES or len(note) > MAX_NOTE_BYTES:
        raise SandboxRefused(f"more than {MAX_WRITE_BYTES} bytes at once: write the files one by one")


def bytes_to_read(limit: int | None) -> int:
    return MAX_READ_BYTES if limit is None else min(limit, MAX_READ_BYTES)


def check_read(path: str, size: int, offset: int, limit: int | None) -> None:
    """Raises SandboxRefused where a whole file was wanted that is too large for one answer."""
    if limit is None and size - offset > MAX_READ_BYTES:
        raise SandboxRefused(f"{path} has {size} bytes: read it in pieces of {MAX_READ_BYTES}")
