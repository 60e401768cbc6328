"""Workflows, and every graph that they have had. A version of a graph never changes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.db.table_rows import Rows
from shared.db.tables.catalogue import workflow_versions, workflows
from shared.types import JSON


@dataclass(frozen=True, slots=True)
class Workflow:
    """`graph`: the latest, which `graph_version` numbers. `version` also counts other changes."""

    id: str
    workspace: str
    name: str
    graph: JSON
    created_at: datetime
    updated_at: datetime
    project: str | None = None
    description: str = ""
    graph_version: int = 1
    metadata: JSON = field(default_factory=dict)
    version: int = 1


@dataclass(frozen=True, slots=True)
class GraphVersion:
    """`created_by`: the id of the key."""

    workspace: str
    workflow: str
    number: int
    graph: JSON
    note: str
    created_at: datetime
    created_by: str | None


ROWS = Rows(workflows, Workflow, "workflow")


async def add(c: AsyncConnection, new: Workflow, *, note: str = "", by: str | None) -> Workflow:
    """Idempotent by id. Raises as `Rows.add`."""
    added = await ROWS.add(c, new)
    if added is new:
        await _keep(c, new, note, by)
    return added


async def change(
    c: AsyncConnection,
    old: Workflow,
    values: Mapping[str, Any],
    *,
    note: str = "",
    by: str | None,
    expected: int | None = None,
) -> Workflow:
    """`old` as read in this transaction, to be changed. Another graph is a version of its own. Raises as `Rows`."""
    other_graph = "graph" in values and values["graph"] != old.graph
    number = old.graph_version + 1 if other_graph else old.graph_version
    changed = await ROWS.change(c, old, {**values, "graph_version": number}, expected=expected)
    if other_graph:
        await _keep(c, changed, note, by)
    return changed


async def versions(c: AsyncConnection, workflow: Workflow, *, before: int | None, limit: int) -> list[GraphVersion]:
    """Newest first, those older than `before`."""
    query = (
        select(workflow_versions)
        .where(workflow_versions.c.workspace == workflow.workspace, workflow_versions.c.workflow == workflow.id)
        .order_by(workflow_versions.c.number.desc())
        .limit(limit)
    )
    if before is not None:
        query = query.where(workflow_versions.c.number < before)
    return [GraphVersion(**row) for row in (await c.execute(query)).mappings()]


async def _keep(c: AsyncConnection, workflow: Workflow, note: str, by: str | None) -> None:
    await c.execute(
        workflow_versions.insert().values(
            workspace=workflow.workspace,
            workflow=workflow.id,
            number=workflow.graph_version,
            graph=workflow.graph,
            note=note,
            created_at=datetime.now(UTC),
            created_by=by,
        )
    )
