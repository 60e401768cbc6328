"""Answers of models, kept for the very same request at temperature 0 (`agents.response_cache`). Off by default.

The very same: of the workspace, to the model, with the same messages and tools. What it gives costs nothing and counts
no tokens.
"""

import hashlib
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict, replace
from typing import Protocol

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared import keys
from shared.config import AgentsSettings
from workflow.llm.types import (
    NO_USAGE,
    Model,
    ModelAround,
    ModelRequest,
    ModelResponse,
    TextDelta,
    ThinkingDelta,
    ToolCall,
)

KEPT_SECONDS = 24 * 3600
KEPT_ANSWERS = 1000
WHOLE = ("stop", "tool_calls")
"""Why an answer ended that is worth keeping."""

log = logging.getLogger("trunkline.llm")


class ResponseCache(Protocol):
    async def get(self, name: str) -> bytes | None: ...

    async def put(self, name: str, answer: bytes) -> None: ...


class InMemory:
    """Of one worker: the answers used last."""

    def __init__(self, most: int = KEPT_ANSWERS) -> None:
        self._most = most
        self._answers: OrderedDict[str, bytes] = OrderedDict()

    async def get(self, name: str) -> bytes | None:
        if name in self._answers:
            self._answers.move_to_end(name)
        return self._answers.get(name)

    async def put(self, name: str, answer: bytes) -> None:
        self._answers[name] = answer
        self._answers.move_to_end(name)
        if len(self._answers) > self._most:
            self._answers.popitem(last=False)


class InRedis:
    """Of all workers, for a day. While Redis is away, models are asked."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    async def get(self, name: str) -> bytes | None:
        try:
            kept = await self._client.get(keys.response(name))
        except RedisError as error:
            log.warning("no answer could be read from the cache: %r", error)
            return None
        return kept.encode() if isinstance(kept, str) else kept

    async def put(self, name: str, answer: bytes) -> None:
        try:
            await self._client.set(keys.response(name), answer, ex=KEPT_SECONDS)
        except RedisError as error:
            log.warning("an answer could not be put into the cache: %r", error)


def response_cache(settings: AgentsSettings, client: Redis) -> ResponseCache | None:
    match settings.response_cache:
        case "memory":
            return InMemory()
        case "redis":
            return InRedis(client)
        case "none":
            return None


class CachedModel(ModelAround):
    """A model that is asked only what nobody of the workspace has asked it before, where its answers do not vary."""

    def __init__(self, model: Model, cache: ResponseCache, workspace: str) -> None:
        super().__init__(model)
        self._cache = cache
        self._workspace = workspace

    async def stream(self, request: ModelRequest) -> AsyncGenerator[TextDelta | ThinkingDelta | ModelResponse, None]:
        """See `Model.stream`."""
        name = self._name(request) if request.temperature == 0 else None
        kept = await self._cache.get(name) if name else None
        if kept is not None:
            answer = _decoded(kept)
            if answer.content:
                yield TextDelta(answer.content)
            yield answer
            return
        async with aclosing(self._model.stream(request)) as items:
            async for item in items:
                if name and isinstance(item, ModelResponse) and item.finish_reason in WHOLE:
                    await self._cache.put(name, orjson.dumps(asdict(replace(item, usage=NO_USAGE))))
                yield item

    def _name(self, request: ModelRequest) -> str:
        asked = [request.messages, request.tools, request.max_output_tokens]
        model = self._model.deployment or self._model.name
        return hashlib.sha256(orjson.dumps([self._workspace, model, *asked])).hexdigest()


def _decoded(kept: bytes) -> ModelResponse:
    fields = orjson.loads(kept)
    calls = [ToolCall(**call) for call in fields["tool_calls"]]
    return ModelResponse(**{**fields, "tool_calls": calls, "usage": NO_USAGE})
