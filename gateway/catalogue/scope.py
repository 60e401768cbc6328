"""What of a workspace's catalogue a caller sees who is limited to a project of it: that project's rows alone."""

from gateway.auth import Principal
from gateway.deps import Services
from shared.types import JSON

NONE_SEEN = ""
"""No project has this id."""


def listed(caller: Principal, asked: str | None) -> str | None:
    """The project whose rows a list has; None: all of the workspace."""
    if caller.project is None or asked == caller.project:
        return asked
    return caller.project if asked is None else NONE_SEEN


async def placed(services: Services, caller: Principal, columns: JSON, *, new: bool) -> JSON:
    """The columns, with the project that the row is to be in. Raises AppError NOT_FOUND, UNAVAILABLE."""
    if not new and "project" not in columns:
        return columns
    return {**columns, "project": await services.auth.workspaces.project_of(caller, columns.get("project"))}
