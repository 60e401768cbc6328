"""Tools as data, of a workspace."""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.db.rows import of_tenant
from shared.db.table_rows import Rows
from shared.db.tables.catalogue import tools
from shared.tenant import Tenant
from shared.types import JSON

ToolType = Literal["http", "function", "builtin", "mcp"]
Effect = Literal["repeatable", "idempotent", "none"]


@dataclass(frozen=True, slots=True)
class Tool:
    """`name`: as models call it, one of its kind in the workspace."""

    id: str
    workspace: str
    name: str
    description: str
    type: ToolType
    config: JSON
    created_at: datetime
    updated_at: datetime
    project: str | None = None
    input_schema: JSON = field(default_factory=dict)
    output_schema: JSON | None = None
    effect: Effect = "none"
    timeout_seconds: int | None = None
    metadata: JSON = field(default_factory=dict)
    version: int = 1


ROWS = Rows(tools, Tool, "tool")


async def named(c: AsyncConnection, tenant: Tenant, names: Collection[str]) -> list[Tool]:
    """The tenant's that have one of these as their name or id."""
    either = or_(tools.c.name.in_(names), tools.c.id.in_(names))
    return await ROWS.all(c, select(tools).where(of_tenant(tools, tenant), either))
