"""What a run carries of its agent: all that a worker must know, so that no run waits for SQL."""

import re

from gateway.agents.known import catalogue_of, check_enabled
from gateway.agents.moves import check_hooks
from gateway.auth import Principal
from gateway.catalogue.tools import with_tools
from gateway.deps import Services
from shared.catalogue.agents import kind_of, merged
from shared.db import agents
from shared.db.agents import Agent
from shared.errors import AppError, ErrorCode
from shared.ids import ALPHABET
from shared.types import JSON
from shared.workers.catalogue import DefinitionCard

AGENT_ID = re.compile(rf"[{ALPHABET}]{{26}}")


async def agent_named(services: Services, caller: Principal, name: str) -> Agent | DefinitionCard:
    """An agent of the caller's by its id, or a kind of agents by its name.

    Raises AppError NOT_FOUND, NOT_IMPLEMENTED where agents are turned off.
    """
    await check_enabled(services)
    if AGENT_ID.fullmatch(name):
        async with services.db.connect() as c:
            return await agents.existing(c, caller.tenant, name)
    card = (await catalogue_of(services)).definition(name)
    if card is None:
        raise AppError(
            ErrorCode.NOT_FOUND, f"There is no agent {name[:100]}, and no kind of agents (GET /api/agents/definitions)."
        )
    return card


async def snapshot(
    services: Services, caller: Principal, name: str | None, parameters: JSON, *, run_id: str
) -> tuple[JSON | None, JSON]:
    """For the `definition` and `parameters` of a new run of the agent, or of none. A run that is there already, as that
    of a request that is sent again, is not judged anew, and carries what it carries.

    Raises AppError as `agent_named` and `with_tools`, and CONFLICT for an agent that takes no runs.
    """
    if name is None and not parameters.get("tools"):
        return None, parameters
    if await services.history.is_there(run_id):
        return None, parameters
    definition = await snapshot_of(services, caller, name) if name is not None else None
    return await with_tools(services, caller, definition, parameters)


async def snapshot_of(services: Services, caller: Principal, name: str) -> JSON:
    """The agent as it is now. Raises as `snapshot`."""
    found = await agent_named(services, caller, name)
    if isinstance(found, DefinitionCard):
        return merged(found, None)
    card = kind_of(await catalogue_of(services), found)
    await check_hooks(services, caller, found)
    return merged(card, found)


async def project_for(services: Services, caller: Principal, asked: str | None, definition: JSON | None) -> str | None:
    """The project of a new thread for a run of the agent, whose own it is where none is asked for.

    Raises AppError NOT_FOUND.
    """
    return await services.auth.workspaces.project_of(caller, asked or (definition or {}).get("project"))
