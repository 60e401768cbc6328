"""What workers have told that they know, and whether what a client names is part of it."""

import logging

from redis.exceptions import RedisError

from gateway.auth import Principal
from gateway.catalogue.tools import no_such_tools, tools_named
from gateway.deps import Services, WithServices
from gateway.errors import invalid
from gateway.routes.agent_servers import check_servers
from shared.channels import ChannelEvent, ChannelEventType
from shared.db.agents import Agent
from shared.errors import AppError, ErrorCode, FieldError
from shared.types import JSON
from shared.workers.catalogue import Catalogue, known_catalogue

log = logging.getLogger("trunkline.gateway")


async def check_enabled(services: WithServices) -> None:
    """Raises AppError NOT_IMPLEMENTED."""
    if not services.settings.agents.enabled:
        raise AppError(
            ErrorCode.NOT_IMPLEMENTED,
            "This installation offers no agents (agents.enabled is false). Threads and runs without one work as ever.",
        )


async def catalogue_of(services: Services) -> Catalogue:
    """Raises AppError UNAVAILABLE while no worker has told."""
    return await known_catalogue(services.redis)


async def check_named(services: Services, caller: Principal, values: JSON) -> None:
    """That the definition, model and tools among an agent's values are there, and that it may have that sandbox and
    those servers. Raises AppError INVALID_REQUEST.
    """
    catalogue = await catalogue_of(services)
    wrong: list[FieldError] = []
    definition, model, tools = (values.get(name) for name in ("definition", "model", "tools"))
    if definition is not None and catalogue.definition(definition) is None:
        known = ", ".join(card.id for card in catalogue.definitions)
        wrong.append(FieldError(place="body.definition_id", detail=f"no kind of agents; there are {known}"))
    if model is not None and not _has_model(services, catalogue, model):
        detail = f"{model}: no model of a provider that workers know; such as openai/NAME"
        wrong.append(FieldError(place="body.model", detail=detail))
    if unknown := (await tools_named(services, caller, tools or [])).unknown:
        wrong.append(FieldError(place="body.tools", detail=no_such_tools(unknown)))
    settings = services.settings
    bounds = settings.sandbox.refused(values.get("sandbox") or {})
    wrong += [FieldError(place=f"body.sandbox.{field}", detail=why) for field, why in bounds]
    wrong += check_servers(settings, values.get("mcp_servers") or {})
    if wrong:
        raise invalid(wrong)


def _has_model(services: Services, catalogue: Catalogue, model: str) -> bool:
    llm = services.settings.llm
    named = (llm.model, llm.planning_model, *llm.fallback_models, *services.settings.agent.delegate_models)
    return model in named or catalogue.has_model(model)


async def announce(services: Services, kind: ChannelEventType, agent: Agent, data: JSON) -> None:
    """To whoever watches. What it is about has been done: that nobody can be told now is for the log."""
    try:
        await services.channels.publish(ChannelEvent(kind, agent.workspace, agent.id, data, agent.project))
    except RedisError as error:
        log.warning("nobody was told of %s of agent %s: %r", kind, agent.id, error)
