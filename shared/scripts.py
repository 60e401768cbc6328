"""Lua scripts as calls: loaded once, repeated while Redis is away, kept by replicas."""

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis
from redis.commands.core import AsyncScript

from shared.redis import NotReplicated, patiently

CLOCK = files("shared").joinpath("clock.lua")
REPLICAS_MS = 1000


class Scripts:
    """The scripts of a package. Any call may be repeated.

    `patience_seconds`: how long a call waits for a Redis that is away before `redis.RedisError` is raised (None: as
    long as it takes). `replicas`: so many must have a change before it counts.
    """

    def __init__(
        self, client: Redis, package: str, *names: str, patience_seconds: float | None = 0, replicas: int = 0
    ) -> None:
        self._client = client
        self._scripts: dict[str, AsyncScript] = {name: client.register_script(source(package, name)) for name in names}
        self._patience_seconds = patience_seconds
        self._replicas = replicas

    async def call(
        self,
        name: str,
        keys: Sequence[str],
        args: Sequence[Any],
        *,
        lasting: bool = True,
        patience_seconds: float | None = None,
    ) -> Any:
        """`lasting`: what it changes must outlive the primary. `patience_seconds`: another patience than its own."""
        script = self._scripts[name]

        async def once() -> Any:
            if lasting and self._replicas:
                return await self._kept(script, keys, args)
            return await script(keys=keys, args=args)

        return await patiently(once, self._patience_seconds if patience_seconds is None else patience_seconds)

    async def _kept(self, script: AsyncScript, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Waits on the connection of the change: for all that Redis had written by then, so a repetition waits too."""
        async with self._client.pipeline(transaction=False) as pipeline:
            await script(keys=keys, args=args, client=pipeline)
            pipeline.execute_command("WAIT", self._replicas, REPLICAS_MS)
            answer, kept = await pipeline.execute()
        if kept < self._replicas:
            raise NotReplicated(f"{kept} of {self._replicas} replicas have the change (redis.replicas)")
        return answer


def source(package: str, name: str) -> str:
    """A script's text, after the clock's and that of its package's `lib.lua`, if there is one."""
    library, script = (files(package).joinpath(f"{part}.lua") for part in ("lib", name))
    return CLOCK.read_text() + (library.read_text() if library.is_file() else "") + script.read_text()
