"""The name of this installation, by which what it makes elsewhere is known as its own."""

import secrets
from dataclasses import dataclass

from redis.asyncio import Redis

from shared import keys
from shared.config import SandboxSettings
from shared.redis import patiently


@dataclass(frozen=True, slots=True)
class Install:
    """`name`: the settings' name, or else the same as `redis`. `redis`: of the Redis that knows our threads.

    Only the latter can say that a thread is gone: what bears another one's name is not to be judged by it.
    """

    name: str
    redis: str


async def find_install(settings: SandboxSettings, client: Redis) -> Install:
    """The Redis's name is made by whoever asks first: the same for all who share it.

    Waits for a Redis that is away, as long as it takes.
    """

    async def kept() -> str:
        await client.set(keys.INSTALL, secrets.token_hex(8), nx=True)
        return str(await client.get(keys.INSTALL))

    redis = await patiently(kept, None)
    return Install(settings.install or redis, redis)
