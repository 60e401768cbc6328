"""Tools by their names: which of them are the workers', and what a run carries of a workspace's own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from redis.asyncio import Redis

from shared.config import ToolsSettings
from shared.db import tools
from shared.db.engine import Database
from shared.db.tools import Tool
from shared.tenant import Tenant
from shared.types import JSON
from shared.workers.tools import told_tools

CARRIED = ("id", "name", "version", "type", "description", "config", "input_schema", "output_schema", "effect")


@dataclass(frozen=True, slots=True)
class NamedTools:
    """`names`: as models call them. `rows`: of those that are the workspace's own, for a run's definition.

    `unknown`: what agents of the workspace are not given.
    """

    names: list[str]
    rows: list[JSON] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ToolCatalogue:
    settings: ToolsSettings
    redis: Redis
    database: Database

    async def named(self, tenant: Tenant, names: Sequence[str], *, settled: bool = False) -> NamedTools:
        """By their names, or the workspace's own by their ids. SQL is asked only for what workers do not have.

        `settled`: the names are an agent's or its kind's, and it was judged before which of the workers' it is given.
        """
        workers = await self.of_workers(names, settled=settled)
        others = [name for name in names if name not in workers]
        if not others:
            return NamedTools(list(names))
        async with self.database.connect() as c:
            rows = await tools.named(c, tenant, others)
        usable = [row for row in rows if not self.settings.disables(row.name)]
        found = {key: row for row in usable for key in (row.name, row.id)}
        return _resolved(names, workers, found)

    async def of_workers(self, names: Sequence[str], *, settled: bool = False) -> set[str]:
        """Those of the names that agents are given by workers; while none has told, what the settings would give."""
        cards = {card.name for card in await told_tools(self.redis)}
        given = names if settled else [name for name in names if self.settings.gives(name)]
        return {name for name in given if name in cards or not cards}


def _resolved(names: Sequence[str], workers: set[str], found: Mapping[str, Tool]) -> NamedTools:
    calls = {name: _called(found[name]) if name in found else name for name in names}
    own = {found[name].id: found[name] for name in names if name in found and found[name].type != "builtin"}
    unknown = [name for name in names if name not in found and name not in workers]
    return NamedTools(list(dict.fromkeys(calls.values())), [carried(row) for row in own.values()], unknown)


def _called(row: Tool) -> str:
    """What stands for a tool of the workers is that tool, for the rules of permissions too."""
    return str(row.config["tool"]) if row.type == "builtin" else row.name


def carried(row: Tool) -> JSON:
    """What a worker needs to make it."""
    return {name: getattr(row, name) for name in (*CARRIED, "timeout_seconds")}
