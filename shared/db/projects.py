"""What a workspace is divided into. Whoever is limited to one project sees that one."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.db.table_rows import Rows
from shared.db.tables.tenants import keys, projects
from shared.types import JSON


@dataclass(frozen=True, slots=True)
class Project:
    id: str
    workspace: str
    name: str
    description: str
    metadata: JSON
    version: int
    created_at: datetime
    updated_at: datetime


ROWS = Rows(projects, Project, "project", project="id")
add, get, existing, page, change = ROWS.add, ROWS.get, ROWS.existing, ROWS.page, ROWS.change


async def remove(c: AsyncConnection, project: Project, *, expected: int | None = None) -> None:
    """With its revoked keys. Raises AppError CONFLICT where something is still in it, or as `Rows.delete`."""
    mine = (keys.c.workspace == project.workspace, keys.c.project == project.id)
    await c.execute(delete(keys).where(*mine, keys.c.revoked_at.is_not(None)))
    await ROWS.delete(c, project, expected=expected)
