"""Waits for a port and asks it for a page once: `python3 - PORT SECONDS HOST PATH`, inside a sandbox.

Prints JSON: `ports` that are listened on, and then either `status` and the beginning of the `body`, or the `problem`.
Standard library only, nothing newer than Python 3.9.
"""

import contextlib
import http.client
import json
import sys
import time

ANSWER_SECONDS = 15
BODY_BYTES = 2000


def listening() -> "list[int]":
    ports = set()
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError), open(f"/proc/net/{name}") as table:  # noqa: PTH123
            for line in table.readlines()[1:]:
                _, local, _, state = line.split()[:4]
                if state == "0A":
                    ports.add(int(local.rpartition(":")[2], 16))
    return sorted(ports)


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
    port, deadline = int(sys.argv[1]), time.monotonic() + float(sys.argv[2])
    while port not in (ports := listening()) and time.monotonic() < deadline:
        time.sleep(0.1)
    told: dict[str, object] = {"ports": ports}
    if port in ports:
        told.update(page(port, *sys.argv[3:5]))
    print(json.dumps(told))  # noqa: T201


if __name__ == "__main__":
    main()
