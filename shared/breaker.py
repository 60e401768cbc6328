"""Circuit breakers as everybody may see them: which there is for a model, and whether it holds calls back.

What opens and closes them is workflow/llm/breaker/breaker.py.
"""

import re
from collections.abc import Sequence
from urllib.parse import urlsplit, urlunsplit

from redis.asyncio import Redis

from shared import keys
from shared.config import LlmSettings


def deployment(model: str, base_url: str | None) -> str:
    """What has a breaker of its own: a model's name, and the address if it is not the provider's. Shows no password."""
    if base_url is None:
        return model
    parts = urlsplit(base_url)
    return f"{model}@{urlunsplit(parts._replace(netloc=parts.netloc.rpartition('@')[2]))}"


def model_of(deployment: str) -> str:
    """The model's name, for clients, whom the address does not concern."""
    return re.split("@https?://", deployment, maxsplit=1)[0]


def deployments(llm: LlmSettings, model: str | None) -> list[str]:
    """Those that a run of the model may use; of none, the settings' one. Empty where workers choose the model."""
    first = model or llm.model
    return [deployment(name, llm.base_url) for name in (first, *llm.fallback_models)] if first else []


async def seconds_held(client: Redis, names: Sequence[str]) -> float | None:
    """How long until one of the deployments takes a call again; None where one does now, or there are none.

    Read-only, in one round trip. Raises RedisError.
    """
    async with client.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.hmget(keys.breaker(name), "away_until", "open_until", "probe_until")
        pipeline.time()
        *found, (seconds, microseconds) = await pipeline.execute()
    now_ms = seconds * 1000 + microseconds // 1000
    held_until = min((max(int(moment or 0) for moment in moments) for moments in found), default=0)
    return (held_until - now_ms) / 1000 if held_until > now_ms else None
