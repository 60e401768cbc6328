from dataclasses import replace

import orjson
from redis.asyncio import Redis

from shared import keys
from shared.workers.catalogue import (
    Catalogue,
    DefinitionCard,
    FunctionCard,
    TemplateCard,
    tell_catalogue,
    told_catalogue,
)
from shared.workers.tools import ToolCard, catalogue_version

TOLD = Catalogue(
    "1.0",
    [DefinitionCard("chat", "Talks.", "builtin", prompt="Hi.", tools=["ls"], limits={"max_turns": 3}, sandbox=False)],
    [FunctionCard("fulfil", [1, 2])],
    [TemplateCard("cli", "A command.")],
    providers=["openai"],
    models=["gpt"],
    deployment="openai/gpt",
)


async def test_the_gateway_reads_what_a_worker_told_and_the_last_word_counts(client: Redis) -> None:
    assert await told_catalogue(client) is None
    await tell_catalogue(client, Catalogue("0.9"))
    await tell_catalogue(client, TOLD)
    assert await told_catalogue(client) == TOLD


async def test_what_a_newer_release_tells_beside_it_is_left_out(client: Redis) -> None:
    await tell_catalogue(client, TOLD)
    told = orjson.loads(str(await client.get(keys.CATALOGUE)))
    told["colours"] = ["red"]
    told["definitions"][0]["mood"] = "good"
    await client.set(keys.CATALOGUE, orjson.dumps(told))
    assert await told_catalogue(client) == TOLD


def test_a_models_name_is_known_by_its_provider_or_by_itself() -> None:
    assert [TOLD.has_model(name) for name in ("openai/new", "gpt", "other/gpt", "unheard-of", "openai")] == [
        *(True, True),
        *(False, False, False),
    ]


def test_workers_that_differ_by_an_mcp_server_that_came_later_have_one_version() -> None:
    own = ToolCard("ls", "Lists.", "builtin", "none", True, {})
    late = ToolCard("mcp__t__x", "X.", "mcp", "none", True, {})
    version = catalogue_version([own], ["f"])
    assert catalogue_version([late, own], ["f"]) == version
    assert catalogue_version([own], ["f", "g"]) != version
    assert catalogue_version([replace(own, enabled=False)], ["f"]) != version
