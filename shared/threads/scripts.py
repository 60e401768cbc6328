"""The Lua transitions as calls: loaded once, repeated while Redis is away."""

from importlib.resources import files
from typing import Any

from redis.asyncio import Redis
from redis.commands.core import AsyncScript

from shared.redis import patiently

NAMES = ("create", "submit", "claim", "emit", "commit", "release", "expire", "cancel", "signal", "inject")


class Scripts:
    """`patience_seconds`: how long a call waits for a Redis that is away (None: for ever). Any call may be repeated."""

    def __init__(self, client: Redis, patience_seconds: float | None) -> None:
        folder = files(__package__)
        library = folder.joinpath("lib.lua").read_text()
        self._scripts: dict[str, AsyncScript] = {
            name: client.register_script(library + folder.joinpath(f"{name}.lua").read_text()) for name in NAMES
        }
        self._patience_seconds = patience_seconds

    async def call(self, name: str, keys: list[str], args: list[Any]) -> list[Any]:
        script = self._scripts[name]
        answer: list[Any] = await patiently(lambda: script(keys=keys, args=args), self._patience_seconds)
        return answer
