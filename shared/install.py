"""The name of this installation, by which what it makes elsewhere is known as its own."""

import secrets

from redis.asyncio import Redis

from shared import keys
from shared.config import SandboxSettings
from shared.redis import patiently


async def install_id(settings: SandboxSettings, client: Redis) -> str:
    """The settings' name, or one made by whoever asks first: the same for all who share the Redis.

    Waits for a Redis that is away, as long as it takes. Empty where nothing is made elsewhere.
    """
    if settings.provider == "local" or settings.install:
        return settings.install or ""

    async def kept() -> str:
        await client.set(keys.INSTALL, secrets.token_hex(8), nx=True)
        return str(await client.get(keys.INSTALL))

    return await patiently(kept, None)
