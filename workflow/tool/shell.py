"""What a model should know about a shell command beside its output: wrong arguments, and what an ending means."""

import ast
import json
import re
from typing import Any

from workflow.sandbox.base import MAX_COMMAND_BYTES, Capabilities, ExecResult

LITERAL_CHARS = 1_000  # a longer text is hardly an argument list
NO_SPACE = re.compile(r"No space left on device|Disk quota exceeded", re.IGNORECASE)
NO_PROCESS = re.compile(
    r"fork: (?:retry: )?Resource temporarily unavailable|[Cc]annot fork|can't start new thread"
    r"|unable to create new native thread|BlockingIOError: \[Errno 11\]"
    r"|(?:fork|clone|spawn|pthread_create)[^\n]{0,60}(?:EAGAIN|Resource temporarily)"
)
NO_NETWORK = re.compile(
    r"Could not resolve host|Temporary failure in name resolution|Name or service not known|Network is unreachable"
    r"|getaddrinfo (?:ENOTFOUND|EAI_AGAIN)"
    # of the ways in which programs say that a proxy has refused
    r"|Not allowed from this sandbox|tunnel[^\n]{0,80}\b40[03]\b|code 403 from proxy|Proxy tunneling failed",
    re.IGNORECASE,
)


def fault_of(command: str) -> str | None:
    """Why `command` is not worth running; None: it is."""
    if not command.strip():
        return "The command is empty. Call bash with the text of a shell command."
    if "\x00" in command:
        return "The command contains a NUL character, which no shell takes. Remove it."
    if len(command.encode()) > MAX_COMMAND_BYTES:
        return (
            f"The command has {len(command.encode()):,} bytes, and bash takes {MAX_COMMAND_BYTES:,}. "
            "Put data into a file with write_files and use the file."
        )
    match _literal(command.strip()):
        case {"command": str(inner)}:
            return f"The command is an object, not shell text. Give only its field's text: {inner[:200]!r}"
        case [str(), *_] as words if all(isinstance(word, str) for word in words):
            return f"The command is a list, not shell text. Write it as in a shell: {' '.join(words)[:200]!r}"
    return None


def _literal(text: str) -> Any:
    """A JSON or Python literal that is a list or an object; None for all else."""
    if text[0] not in "[{" or len(text) > LITERAL_CHARS:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def hints_for(result: ExecResult, sandbox: Capabilities) -> list[str]:
    """What an ended command's exit code and output mean here, where that is not plain from its own words."""
    if result.exit_code in (0, None):
        return []
    network = sandbox.network
    output = result.output.head + result.output.tail
    hints = []
    if result.exit_code == 126:
        hints.append("Exit code 126: found, but not executable. Run it with its interpreter, or chmod +x it.")
    if result.exit_code == 127:
        hints.append("Exit code 127: there is no such command. `command -v NAME` tells what is installed.")
    if result.exit_code == 137 and not result.killed_by:
        hints.append("Exit code 137: a process was killed (SIGKILL), often for using too much memory.")
    if NO_SPACE.search(output):
        hints.append("The sandbox's disk space is used up: `du -sh /workspace/* /tmp` shows by what.")
    if NO_PROCESS.search(output):
        limit = f"its limit of {sandbox.processes} processes and threads" if sandbox.processes else "its process limit"
        hints.append(f"The sandbox has met {limit}: end background tasks, or use fewer at once (such as make -j2).")
    if (network.policy != "open" or network.proxy) and NO_NETWORK.search(output):
        hints.append(network.text)
    return hints
