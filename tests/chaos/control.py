"""How the harness tells a process of the fleet what is to go wrong in it: a file a process, replaced as a whole."""

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

FOLDER = "CHAOS_FOLDER"
"""The environment variable that names the folder of the whole experiment, and marks its processes."""


@dataclass(frozen=True)
class Orders:
    """`pid`: the failpoint and the block are for this incarnation only; the rest is for the name.

    `point`: the failpoint at which the process kills itself, when it passes it for the `passes`-th time.
    `block_seconds`: how long its event loop is to stand still, once. `clock_seconds`: how far its wall clock is off.
    `copies`, `drop`, `delay_seconds`: how often each queue message is sent, the share of them that is lost, how late
    they come.
    """

    pid: int = 0
    point: str = ""
    passes: int = 1
    block_seconds: float = 0
    clock_seconds: float = 0
    copies: int = 1
    drop: float = 0
    delay_seconds: float = 0

    @classmethod
    def read(cls, path: Path) -> Self:
        return cls(**json.loads(path.read_text())) if path.exists() else cls()


def folder() -> Path:
    return Path(os.environ[FOLDER])


def orders_path(root: Path, name: str) -> Path:
    return root / "orders" / f"{name}.json"


def death_path(root: Path, pid: int) -> Path:
    """Written by a process just before it kills itself: at which failpoint, and when."""
    return root / "deaths" / f"{pid}.json"


def give_orders(root: Path, name: str, **changes: Any) -> None:
    path = orders_path(root, name)
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(asdict(replace(Orders.read(path), **changes))))
    fresh.replace(path)


def withdraw_orders(root: Path) -> None:
    for path in (root / "orders").glob("*.json"):
        path.unlink()
