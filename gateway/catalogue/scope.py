"""What of a workspace's catalogue a caller sees who is limited to a project of it: that project's rows alone."""

from gateway.auth import Principal
from gateway.deps import Services
from gateway.errors import invalid
from shared.errors import AppError, ErrorCode, FieldError
from shared.types import JSON

NONE_SEEN = ""
"""No project has this id."""


def listed(caller: Principal, asked: str | None) -> str | None:
    """The project whose rows a list has; None: all of the workspace."""
    if caller.project is None or asked == caller.project:
        return asked
    return caller.project if asked is None else NONE_SEEN


async def placed(services: Services, caller: Principal, columns: JSON, *, new: bool) -> JSON:
    """The columns, with the project that the row is to be in. Raises AppError INVALID_REQUEST, UNAVAILABLE."""
    if not new and "project" not in columns:
        return columns
    try:
        project = await services.auth.workspaces.project_of(caller, columns.get("project"))
    except AppError as error:
        if error.code is not ErrorCode.NOT_FOUND:
            raise
        raise invalid([FieldError(place="body.project_id", detail=error.detail)]) from error
    return {**columns, "project": project}
