"""A sandbox as E2B's control plane knows it."""

import secrets
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from tests.support.machines.machine import Machine

ENVD_VERSION = "0.6.13"
ENVD_PORT = 49983


@dataclass(slots=True)
class Box:
    """`asked` is the body it was created with. Times are seconds since the epoch."""

    machine: Machine
    asked: dict[str, Any]
    ends_at: float
    domain: str
    started_at: float = field(default_factory=time.time)
    running: bool = True
    access_token: str = field(default_factory=lambda: secrets.token_hex(16))
    traffic_token: str = field(default_factory=lambda: secrets.token_hex(16))

    @property
    def id(self) -> str:
        return self.machine.name

    @property
    def metadata(self) -> dict[str, str]:
        return dict(self.asked.get("metadata") or {})

    @property
    def env(self) -> dict[str, str]:
        return dict(self.asked.get("envVars") or {})

    @property
    def state(self) -> str:
        return "running" if self.running else "paused"

    @property
    def pauses_at_end(self) -> bool:
        return bool(self.asked.get("autoPause"))

    @property
    def resumes_by_traffic(self) -> bool:
        return bool((self.asked.get("autoResume") or {}).get("enabled"))

    @property
    def public(self) -> bool:
        return (self.asked.get("network") or {}).get("allowPublicTraffic") is not False

    def created(self) -> dict[str, Any]:
        """The answer to create and connect."""
        return {
            "templateID": self.asked["templateID"],
            "sandboxID": self.id,
            "clientID": "double",
            "envdVersion": ENVD_VERSION,
            "envdAccessToken": self.access_token,
            "domain": self.domain,
            **({} if self.public else {"trafficAccessToken": self.traffic_token}),
        }

    def listed(self) -> dict[str, Any]:
        return {
            "templateID": self.asked["templateID"],
            "sandboxID": self.id,
            "clientID": "double",
            "startedAt": _time(self.started_at),
            "endAt": _time(self.ends_at),
            "cpuCount": 2,
            "memoryMB": 1024,
            "diskSizeMB": 2048,
            "state": self.state,
            "envdVersion": ENVD_VERSION,
            "metadata": self.metadata,
        }

    def detail(self) -> dict[str, Any]:
        return {**self.listed(), "envdAccessToken": self.access_token, "domain": self.domain}


BOX = web.RequestKey("box", Box)
"""The sandbox that a request to envd is for."""


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
