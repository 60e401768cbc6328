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

MAX_SECONDS = 7 * 24 * 3600
"""Of a link."""


@dataclass(frozen=True, slots=True)
class Link:
    """`sandbox` is the thread whose sandbox it is; `expires_at` in seconds since 1970."""

    sandbox: str
    port: int
    ticket: str
    expires_at: float


async def issue(client: Redis, sandbox: str, port: int, *, seconds: int, public: bool = False) -> Link:
    """`seconds`: at most MAX_SECONDS. `public`: the port needs no ticket for at least as long, whoever asks."""
    link = Link(sandbox, port, secrets.token_urlsafe(32), time.time() + seconds)
    generation, everybody = keys.port_links(sandbox, port), keys.public_port(sandbox, port)
    async with client.pipeline(transaction=True) as pipeline:
        pipeline.get(generation)
        pipeline.expire(generation, seconds, gt=True)
        if public:
            pipeline.set(everybody, "1", ex=seconds, nx=True)
            pipeline.expire(everybody, seconds, gt=True)
        now, *_ = await pipeline.execute()
    await client.set(keys.port_link(_digest(link.ticket)), _opens(sandbox, port, now), ex=seconds)
    return link


async def seconds_left(client: Redis, sandbox: str, port: int, ticket: str) -> int:
    """How long the ticket still opens that port; 0 where it does not."""
    key = keys.port_link(_digest(ticket))
    async with client.pipeline(transaction=False) as pipeline:
        pipeline.get(key)
        pipeline.ttl(key)
        pipeline.get(keys.port_links(sandbox, port))
        opens, seconds, now = await pipeline.execute()
    return max(int(seconds), 0) if _text(opens) == _opens(sandbox, port, now) else 0


async def public_seconds_left(client: Redis, sandbox: str, port: int) -> int:
    """How long the port still needs no ticket; 0 where it does."""
    return max(int(await client.ttl(keys.public_port(sandbox, port))), 0)


async def revoke(client: Redis, sandbox: str, port: int) -> None:
    """Ends all links of the port, and that it is public. What a provider has given out itself goes on."""
    generation = keys.port_links(sandbox, port)
    async with client.pipeline(transaction=True) as pipeline:
        pipeline.incr(generation)
        pipeline.expire(generation, MAX_SECONDS)
        pipeline.delete(keys.public_port(sandbox, port))
        await pipeline.execute()


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


def _opens(sandbox: str, port: int, generation: str | bytes | None) -> str:
    return f"{sandbox}:{port} {_text(generation)}"


def _text(value: str | bytes | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""


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
