"""Links to the ports of sandboxes: who has one may see what is served there, until it ends.

A link's ticket is opaque. Redis keeps its hash, so that every gateway knows it and nobody reads it there.
"""

import hashlib
import secrets
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from redis.asyncio import Redis

from shared import keys
from shared.config import ApiSettings


@dataclass(frozen=True, slots=True)
class Link:
    """`sandbox` is the thread whose sandbox it is; `expires_at` in seconds since 1970."""

    sandbox: str
    port: int
    ticket: str
    expires_at: float


async def issue(client: Redis, sandbox: str, port: int, *, seconds: int, public: bool = False) -> Link:
    """`public`: the port needs no ticket for as long, whoever asks."""
    link = Link(sandbox, port, secrets.token_urlsafe(32), time.time() + seconds)
    await client.set(keys.port_link(_digest(link.ticket)), _place(sandbox, port), ex=seconds)
    if public:
        await client.set(keys.public_port(sandbox, port), "1", ex=seconds)
    return link


async def seconds_left(client: Redis, sandbox: str, port: int, ticket: str) -> int:
    """How long the ticket still opens that port; 0 where it does not."""
    key = keys.port_link(_digest(ticket))
    place = await client.get(key)
    if (place.decode() if isinstance(place, bytes) else place) != _place(sandbox, port):
        return 0
    return max(int(await client.ttl(key)), 0)


async def is_public(client: Redis, sandbox: str, port: int) -> bool:
    return bool(await client.exists(keys.public_port(sandbox, port)))


def wildcard(settings: ApiSettings) -> str:
    """The origins of what sandboxes serve, with `*` where each has its own name."""
    return settings.sandbox_origin or f"http://*.localhost:{settings.port}"


def origin(settings: ApiSettings, sandbox: str, port: int) -> str:
    return wildcard(settings).replace("*", f"{port}-{sandbox}")


def address(settings: ApiSettings, link: Link, path: str = "/") -> str:
    """What to open. `path` begins with a slash, and may have a query."""
    separator = "&" if "?" in path else "?"
    return f"{origin(settings, link.sandbox, link.port)}{path}{separator}ticket={link.ticket}"


def _digest(ticket: str) -> str:
    return hashlib.sha256(ticket.encode()).hexdigest()


def _place(sandbox: str, port: int) -> str:
    return f"{sandbox}:{port}"


@dataclass(frozen=True, slots=True)
class PortLinks:
    """Links to one sandbox's ports."""

    client: Redis
    settings: ApiSettings
    sandbox: str

    def host(self, port: int) -> str:
        """What browsers send as the Host of the port's pages."""
        return urlsplit(origin(self.settings, self.sandbox, port)).netloc

    async def issue(self, port: int, path: str, *, seconds: int, public: bool) -> tuple[str, float]:
        """What to open, and when that ends, in seconds since 1970."""
        link = await issue(self.client, self.sandbox, port, seconds=seconds, public=public)
        return address(self.settings, link, path), link.expires_at
