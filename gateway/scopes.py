"""Which scope each route asks of its caller, read from what the route depends on."""

from fastapi.dependencies.models import Dependant
from fastapi.routing import RouteContext

from gateway.deps import Needs, StreamNeeds
from shared.types import Scope


def scope_of(route: RouteContext) -> Scope | None:
    """None: it asks for no caller at all."""
    dependant: Dependant | None = getattr(route, "dependant", None)
    return None if dependant is None else _scope_in(dependant)


def _scope_in(dependant: Dependant) -> Scope | None:
    if isinstance(dependant.call, Needs | StreamNeeds):
        return dependant.call.scope
    return next((scope for scope in map(_scope_in, dependant.dependencies) if scope), None)
