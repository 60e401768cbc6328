"""An agent as its runs carry it, so that no run waits for SQL."""

from dataclasses import dataclass

from redis.asyncio import Redis

from shared.catalogue.tools import NamedTools, ToolCatalogue
from shared.config import Settings
from shared.db import agents
from shared.db.agents import Agent, AgentStatus
from shared.db.engine import Database
from shared.errors import AppError, ErrorCode
from shared.ids import is_row_id
from shared.net.hosts import common
from shared.tenant import Tenant
from shared.threads.types import Run
from shared.types import JSON, RunStatus
from shared.workers.catalogue import Catalogue, DefinitionCard, known_catalogue

LIMITED = ("memory_bytes", "processes", "disk_bytes")
"""Of a sandbox, what an agent may have less of."""


def merged(card: DefinitionCard, agent: Agent | None) -> JSON:
    """What the agent says goes before what its kind says; of rules for calls and bounds of a sandbox both hold."""
    own: JSON = {"model": card.model, "temperature": card.temperature, "tools": card.tools, **card.limits}
    prompt, enabled, bounds = card.prompt, card.sandbox, _bounds(card.sandbox_config)
    if agent is not None:
        given = {"model": agent.model, "temperature": agent.temperature, "tools": agent.tools, **agent.limits}
        own |= {name: value for name, value in given.items() if value is not None}
        prompt, enabled = agent.prompt or prompt, agent.sandbox.get("enabled", enabled)
        bounds = _both(bounds, _bounds(agent.sandbox))
    rules = [list(each) for each in (card.permissions, agent.permissions if agent else None) if each]
    return {
        "agent_id": agent.id if agent else None,
        "project": agent.project if agent else None,
        "definition": card.id,
        "version": agent.version if agent else None,
        "prompt": prompt,
        "sandbox": enabled,
        "parameters": {name: value for name, value in own.items() if value is not None},
        **({"permissions": rules} if rules else {}),
        **({"mcp_servers": agent.mcp_servers} if agent and agent.mcp_servers else {}),
        **bounds,
    }


def _bounds(sandbox: JSON) -> JSON:
    """Those of a run's sandbox, in a definition's words."""
    found: JSON = {}
    if sandbox.get("network") in ("none", "allow"):
        found["allowed_hosts"] = sandbox.get("allowed_hosts", []) if sandbox["network"] == "allow" else []
    if sandbox.get("provider"):
        found["sandbox_provider"] = sandbox["provider"]
    if limits := {name: sandbox[name] for name in LIMITED if sandbox.get(name)}:
        found["sandbox_limits"] = limits
    return found


def left_of(definition: JSON | None) -> JSON | None:
    """What a child keeps of its parent's agent: the workspace's tools and its servers, and what bounds it."""
    parent = definition or {}
    left: JSON = {name: parent[name] for name in ("tools", "mcp_servers") if parent.get(name)}
    return left | _bounds_of(parent) or None


def _bounds_of(definition: JSON) -> JSON:
    names = ("permissions", "allowed_hosts", "sandbox_provider", "sandbox_limits")
    return {name: definition[name] for name in names if name in definition} | (
        {} if definition.get("sandbox", True) else {"sandbox": False}
    )


def within(child: JSON, parent: JSON | None) -> JSON:
    """An agent that another one calls: in the bounds of both."""
    outer = _bounds_of(parent or {})
    rules = [*outer.get("permissions", ()), *child.get("permissions", ())]
    return {
        **child,
        "sandbox": child["sandbox"] and outer.get("sandbox", True),
        **({"permissions": rules} if rules else {}),
        **_both(outer, child),
    }


def _both(outer: JSON, inner: JSON) -> JSON:
    """The bounds of a sandbox that both have."""
    hosts = [each["allowed_hosts"] for each in (outer, inner) if "allowed_hosts" in each]
    limits = [each.get("sandbox_limits", {}) for each in (outer, inner)]
    smallest = {name: min(each[name] for each in limits if name in each) for name in {**limits[0], **limits[1]}}
    provider = inner.get("sandbox_provider") or outer.get("sandbox_provider")
    return {
        **({"sandbox_provider": provider} if provider else {}),
        **({"allowed_hosts": common(*hosts) if len(hosts) > 1 else hosts[0]} if hosts else {}),
        **({"sandbox_limits": smallest} if smallest else {}),
    }


def with_named(definition: JSON, named: NamedTools) -> JSON:
    """With the tools that its parameters name. Raises AppError CONFLICT for one that is not given any more."""
    if named.unknown:
        raise AppError(
            ErrorCode.CONFLICT,
            f"The agent names tools that it is not given any more: {', '.join(named.unknown)}. Change the agent.",
        )
    parameters = {**definition["parameters"], "tools": named.names}
    return {**definition, "parameters": parameters, **({"tools": named.rows} if named.rows else {})}


@dataclass(frozen=True, slots=True)
class AgentCatalogue:
    """For workers, whose runs call agents."""

    settings: Settings
    redis: Redis
    database: Database

    async def definition(self, tenant: Tenant, name: str) -> tuple[JSON, Agent | None]:
        """An agent that the tenant sees, by its id, or a kind of agents by its name: as it is now, and its row.

        Whether its hooks have succeeded is not looked at. Raises AppError NOT_IMPLEMENTED where agents are turned off,
        NOT_FOUND, CONFLICT for one that takes no runs, UNAVAILABLE.
        """
        if not self.settings.agents.enabled:
            raise AppError(ErrorCode.NOT_IMPLEMENTED, "This installation offers no agents (agents.enabled is false).")
        catalogue = await known_catalogue(self.redis)
        card, agent = catalogue.definition(name), None
        if card is None:
            agent = await self._agent(tenant, name)
            card = kind_of(catalogue, agent)
        definition = merged(card, agent)
        names = definition["parameters"].get("tools")
        if not names:
            return definition, agent
        tools = ToolCatalogue(self.settings.tools, self.redis, self.database)
        return with_named(definition, await tools.named(tenant, names, settled=True)), agent

    async def _agent(self, tenant: Tenant, name: str) -> Agent:
        if is_row_id(name):
            async with self.database.connect() as c:
                if found := await agents.get(c, tenant, name):
                    return found
        raise AppError(ErrorCode.NOT_FOUND, f"There is no agent {name[:100]}, and no kind of agents of this name.")


def check_hooked(agent: Agent, run: Run | None) -> None:
    """That its last hook run, if there is one (any more), has succeeded. Raises AppError CONFLICT."""
    if run is None or run.status is RunStatus.SUCCEEDED:
        return
    if run.status in (RunStatus.FAILED, RunStatus.CANCELED):
        detail = f"Agent {agent.id} could not be activated: run {run.id} says why. Activate it again to retry."
    else:
        detail = f"Agent {agent.id} is still being activated, by run {run.id}. Wait for that run's end."
    raise AppError(ErrorCode.CONFLICT, detail)


def kind_of(catalogue: Catalogue, agent: Agent) -> DefinitionCard:
    """Of an agent that is to run. Raises AppError CONFLICT for one that takes no runs."""
    card = catalogue.definition(agent.definition)
    if card is None:
        raise AppError(
            ErrorCode.CONFLICT,
            f"Agent {agent.id} is of the kind {agent.definition!r}, which no worker knows any more. Has a module been "
            "taken out of agents.registry_modules?",
        )
    if agent.status is not AgentStatus.ACTIVE:
        raise AppError(ErrorCode.CONFLICT, f"Agent {agent.id} is {agent.status}: it takes no runs. Activate it first.")
    return card
