"""One-time tickets: a link that lets its first user in, without a key in an address."""

import hashlib
import secrets

from redis.asyncio import Redis

from shared import keys


async def issue(client: Redis, workspace: str, *, seconds: int) -> str:
    """A new ticket for a workspace. Redis keeps its hash only, for so many seconds."""
    ticket = secrets.token_urlsafe(32)
    await client.set(_key(ticket), workspace, ex=seconds)
    return ticket


async def redeem(client: Redis, ticket: str) -> str | None:
    """The ticket's workspace, the first time; None ever after."""
    workspace = await client.getdel(_key(ticket))
    return workspace.decode() if isinstance(workspace, bytes) else workspace


def _key(ticket: str) -> str:
    return keys.ticket(hashlib.sha256(ticket.encode()).hexdigest())
