"""The name of this installation, by which what it makes elsewhere is known as its own."""

import secrets

from redis.asyncio import Redis

from shared import keys


async def install_id(client: Redis) -> str:
    """Made by whoever asks first; the same for all who share the Redis."""
    await client.set(keys.INSTALL, secrets.token_hex(8), nx=True)
    return str(await client.get(keys.INSTALL))
