"""Which workspace and project a request is for, of those that its caller may use."""

from starlette.requests import HTTPConnection

from gateway.auth.principal import DEFAULT_WORKSPACE, Principal
from gateway.auth.remembered import Remembered
from shared.db import projects, workspaces
from shared.db.engine import Database
from shared.db.projects import Project
from shared.db.workspaces import Workspace
from shared.errors import AppError, ErrorCode
from shared.ids import is_row_id
from shared.tenant import Tenant
from shared.types import JSON

SELECT_BY_ID = ("X-Workspace-Id", "workspace_id")
"""Header and parameter of the query."""
SELECT_BY_SLUG = ("X-Workspace-Slug", "workspace_slug")


class Workspaces:
    """The default workspace is always there: its requests go on without SQL."""

    def __init__(self, db: Database, *, remember_seconds: float) -> None:
        self._db = db
        self._by_id = Remembered(self._load, max_seconds=remember_seconds)
        self._by_slug = Remembered(self._load_slug, max_seconds=remember_seconds)
        self._projects = Remembered(self._load_project, max_seconds=remember_seconds)

    async def selected(self, connection: HTTPConnection, caller: Principal) -> Principal:
        """The caller, for the workspace that the request names, or else for its own.

        Raises AppError: NOT_FOUND (none that the caller may use), FORBIDDEN (its own is not there), UNAVAILABLE.
        """
        asked = await self._asked(connection, caller)
        if not asked:
            await self._check_own(caller)
            return caller
        if len(asked) > 1 or not all(caller.may_select(each) for each in asked):
            raise _no_such_workspace()
        [workspace] = asked
        if workspace == caller.workspace:
            await self._check_own(caller)
        elif workspace != DEFAULT_WORKSPACE and await self._by_id.get(workspace) is None:
            raise _no_such_workspace()
        return caller.in_workspace(workspace)

    async def project_of(self, caller: Principal, asked: str | None) -> str | None:
        """The project that something is to be of. Raises AppError NOT_FOUND, UNAVAILABLE."""
        project = asked or caller.project
        if project is None:
            return None
        hidden = caller.project not in (None, project)
        if hidden or not is_row_id(project) or await self._projects.get(f"{caller.workspace} {project}") is None:
            raise AppError(ErrorCode.NOT_FOUND, f"There is no project {project[:100]}.")
        return project

    async def in_project(self, caller: Principal, values: JSON, *, new: bool = False) -> JSON:
        """Columns that a request gives, whose `project` is one that the caller may put something into: for whoever is
        limited to a project that one, also where none is named. Raises as `project_of`."""
        if not new and "project" not in values:
            return values
        return {**values, "project": await self.project_of(caller, values.get("project"))}

    def forget(self, workspace: Workspace) -> None:
        """It was changed. Other gateways notice within Remembered's time."""
        self._by_id.forget(workspace.id)
        self._by_slug.forget(workspace.slug)

    def forget_project(self, workspace: str, project: str) -> None:
        self._projects.forget(f"{workspace} {project}")

    async def _asked(self, connection: HTTPConnection, caller: Principal) -> set[str]:
        """The ids of the workspaces that the request names in one way or another."""
        ids = set(_values(connection, SELECT_BY_ID))
        for slug in _values(connection, SELECT_BY_SLUG):
            found = await self._by_slug.get(slug)
            if found is None or not caller.may_select(found.id):
                raise _no_such_workspace()
            ids.add(found.id)
        return ids

    async def _check_own(self, caller: Principal) -> None:
        """A token may name what was never made, or is gone. Keys go with their workspace."""
        by_token = caller.workspaces is not None and caller.workspaces
        if by_token and caller.workspace != DEFAULT_WORKSPACE and await self._by_id.get(caller.workspace) is None:
            raise AppError(ErrorCode.FORBIDDEN, f"The token is for workspace {caller.workspace}, which is not here.")

    async def _load(self, workspace: str) -> Workspace | None:
        async with self._db.connect() as c:
            return await workspaces.get(c, workspace)

    async def _load_slug(self, slug: str) -> Workspace | None:
        async with self._db.connect() as c:
            return await workspaces.by_slug(c, slug)

    async def _load_project(self, name: str) -> Project | None:
        workspace, _, project = name.partition(" ")
        async with self._db.connect() as c:
            return await projects.get(c, Tenant(workspace), project)


def _values(connection: HTTPConnection, names: tuple[str, str]) -> list[str]:
    header, parameter = names
    given = [*connection.headers.getlist(header), *connection.query_params.getlist(parameter)]
    if not all(map(is_row_id, given)):
        raise _no_such_workspace()
    return given


def _no_such_workspace() -> AppError:
    return AppError(ErrorCode.NOT_FOUND, "There is no such workspace.")
