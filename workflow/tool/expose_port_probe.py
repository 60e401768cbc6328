"""Waits for a port and asks it for a page once: `python3 - PORT SECONDS HOST PATH`, inside a sandbox.

Prints JSON: `ports` that are listened on, and then either `status` and the beginning of the `body`, or the `problem`;
`alone`: the wait was broken off, because no process of any other command was left.
Standard library only, nothing newer than Python 3.9; what it imports of ours is put in its place (expose_port.py).
"""

import contextlib
import http.client
import json
import os
import sys
import time

from workflow.sandbox.sandboxd_listening import listening

ANSWER_SECONDS = 15
BODY_BYTES = 2000
PAUSE_SECONDS = 0.1
ALONE_SECONDS = 1.0  # that nobody else must be at work: a server may be about to begin anew
MARK = b"SANDBOX_COMMAND="  # in the environment of all that a command starts, see sandboxd_commands


def alone() -> bool:
    """Whether no process of another command is left. Where we bear no mark ourselves, nobody can tell."""
    own = MARK + os.environb.get(MARK[:-1], b"")
    found: set[bytes] = set()
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as environ:  # noqa: PTH123
                found.update(each for each in environ.read().split(b"\0") if each.startswith(MARK))
    return found == {own}


def wait(port: int, seconds: float) -> "tuple[list[int], bool]":
    """The ports that are listened on in the end, and whether nobody was left to wait for."""
    deadline = time.monotonic() + seconds
    since = None
    while port not in (ports := listening()) and time.monotonic() < deadline:
        since = (since or time.monotonic()) if alone() else None
        if since and time.monotonic() - since > ALONE_SECONDS:
            return ports, True
        time.sleep(PAUSE_SECONDS)
    return ports, False


def page(port: int, host: str, path: str) -> "dict[str, object]":
    problem = ""
    for address in ("127.0.0.1", "::1"):
        connection = http.client.HTTPConnection(address, port, timeout=ANSWER_SECONDS)
        try:
            connection.request("GET", path, headers={"Host": host})
            answer = connection.getresponse()
            return {"status": answer.status, "body": answer.read(BODY_BYTES).decode(errors="replace")}
        except ConnectionRefusedError:
            continue
        except (OSError, http.client.HTTPException) as error:
            problem = f"{type(error).__name__}: {error}"
    return {"problem": problem or "the connection is refused"}


def main() -> None:
    port = int(sys.argv[1])
    ports, given_up = wait(port, float(sys.argv[2]))
    told: dict[str, object] = {"ports": ports, "alone": given_up}
    if port in ports:
        told.update(page(port, *sys.argv[3:5]))
    print(json.dumps(told))  # noqa: T201


if __name__ == "__main__":
    main()
