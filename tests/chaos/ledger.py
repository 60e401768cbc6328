"""What really happened to the world outside, whoever reports it: files that outlive every process of the fleet."""

import hashlib
import json
import os
from collections import defaultdict
from pathlib import Path


class Ledger:
    """`op` is what somebody wanted done, once; `key` is how the product names it.

    `keyed` is a service that knows what it did by the key, `blind` one that does it whenever it is told to.
    """

    def __init__(self, root: Path) -> None:
        self._keyed = root / "ledger" / "keyed"
        self._blind = root / "ledger" / "blind"
        self._marks = root / "ledger" / "marks"
        for path in (self._keyed, self._blind, self._marks):
            path.mkdir(parents=True, exist_ok=True)

    def do_keyed(self, op: str, key: str) -> bool:
        """Whether it was done by this call."""
        fresh = self._keyed / f".{os.getpid()}-{os.urandom(6).hex()}"
        fresh.write_text(json.dumps({"op": op, "key": key}))
        try:
            os.link(fresh, self._keyed / _name(key))
        except FileExistsError:
            return False
        finally:
            fresh.unlink()
        return True

    def did_keyed(self, key: str) -> bool:
        return (self._keyed / _name(key)).exists()

    def do_blind(self, op: str) -> None:
        line = os.open(self._blind / _name(op), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.write(line, f"{op}\n".encode())
        os.close(line)

    def blind(self, op: str) -> int:
        """How often it was done."""
        path = self._blind / _name(op)
        return path.read_text().count("\n") if path.exists() else 0

    def first_time(self, op: str) -> bool:
        try:
            (self._marks / _name(op)).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def keys_of_keyed(self) -> dict[str, set[str]]:
        """For each op, the keys under which it was done."""
        found: dict[str, set[str]] = defaultdict(set)
        for path in self._keyed.glob("[!.]*"):
            entry = json.loads(path.read_text())
            found[entry["op"]].add(entry["key"])
        return found


def _name(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
