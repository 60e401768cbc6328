"""Tasks: named pieces of work, each with what is to do it."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from shared.db.table_rows import Rows
from shared.db.tables.catalogue import tasks
from shared.tenant import Tenant
from shared.types import JSON, Runnable


@dataclass(frozen=True, slots=True)
class Task:
    """`last_run`: the latest of its runs, whose status is the task's."""

    id: str
    workspace: str
    name: str
    runnable_type: str
    created_at: datetime
    updated_at: datetime
    project: str | None = None
    description: str = ""
    runnable_id: str | None = None
    input: Any = None
    parameters: JSON = field(default_factory=dict)
    metadata: JSON = field(default_factory=dict)
    last_run: str | None = None
    version: int = 1

    @property
    def runnable(self) -> Runnable:
        return Runnable(self.runnable_type)


ROWS = Rows(tasks, Task, "task")


async def began(c: AsyncConnection, workspace: str, task_id: str, run_id: str) -> None:
    """A run was made of it, if it is there still. No new version: nobody changed the task.

    The later run stays its last one, however often the earlier one is told of.
    """
    task = await ROWS.get(c, Tenant(workspace), task_id, to_change=True)
    if task is not None and (task.last_run is None or _time_of(run_id) > _time_of(task.last_run)):
        await c.execute(tasks.update().where(ROWS.at(workspace, task_id)).values(last_run=run_id))


def _time_of(run_id: str) -> str:
    """Run ids of whatever threads sort by what comes after the thread's id."""
    return run_id.partition(".")[2]
