"""A sandbox as Daytona's API knows it."""

import secrets
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from tests.support.daytona_double.sessions import Sessions
from tests.support.machines.machine import Machine

ORGANIZATION = "00000000-0000-4000-8000-000000000000"
INTERVALS = {
    "autoStopInterval": 15,
    "autoPauseInterval": 0,
    "autoArchiveInterval": 7 * 24 * 60,
    "autoDeleteInterval": -1,
}
"""The service's defaults, in minutes."""


@dataclass(slots=True)
class Box:
    """`asked` is the body it was created with; `machine` is None until it has started for the first time."""

    id: str
    asked: dict[str, Any]
    toolbox_url: str
    state: str = "creating"
    machine: Machine | None = None
    labels: dict[str, str] = field(default_factory=dict)
    intervals: dict[str, int] = field(default_factory=dict)
    sessions: Sessions = field(default_factory=Sessions)
    preview_token: str = field(default_factory=lambda: secrets.token_hex(12))
    created_at: float = field(default_factory=time.time)
    changed_at: float = field(default_factory=time.monotonic)
    active_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.labels = dict(self.asked.get("labels") or {})
        self.intervals = {name: self.asked.get(name, minutes) for name, minutes in INTERVALS.items()}

    @property
    def name(self) -> str:
        return str(self.asked.get("name") or self.id)

    @property
    def env(self) -> dict[str, str]:
        return dict(self.asked.get("env") or {})

    @property
    def running(self) -> Machine:
        """Its machine, for those who know that it is started."""
        assert self.machine
        return self.machine

    def become(self, state: str) -> None:
        self.state = state
        self.changed_at = self.active_at = time.monotonic()

    def touch(self) -> None:
        """What counts as activity: calls of the API and of the toolbox, not what goes on inside."""
        self.active_at = time.monotonic()

    def dto(self) -> dict[str, Any]:
        created = datetime.fromtimestamp(self.created_at, UTC).isoformat()
        return {
            "id": self.id,
            "organizationId": ORGANIZATION,
            "name": self.name,
            "snapshot": self.asked.get("snapshot", "daytona-small"),
            "user": "daytona",
            "env": self.env,
            "labels": self.labels,
            "public": bool(self.asked.get("public")),
            "networkBlockAll": bool(self.asked.get("networkBlockAll")),
            "kvm": False,
            "target": self.asked.get("target") or "local",
            "cpu": 1,
            "gpu": 0,
            "memory": 1,
            "disk": 3,
            "state": self.state,
            "createdAt": created,
            "updatedAt": created,
            **self.intervals,
            "toolboxProxyUrl": self.toolbox_url,
        }


BOX = web.RequestKey("box", Box)
"""The sandbox that a request to the toolbox is for; it is started."""
