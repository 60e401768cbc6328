"""What lists of runs and reports of their cost are asked for."""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, Field

from gateway.errors import invalid
from gateway.patterns import looks_like
from gateway.routes.paging import Cursor, Limit, Time, Word
from shared.db.history import RunFilter
from shared.errors import FieldError
from shared.types import Runnable, RunStatus


def _plain_status(status: object) -> object:
    """Source 000 says COMPLETED, and all of them in capitals."""
    lower = status.lower() if isinstance(status, str) else status
    return RunStatus.SUCCEEDED if lower == "completed" else lower


Label = Annotated[Word, looks_like(r"^[^\x00:]*:[^\x00]*$")]


_SHORT = (Runnable.AGENT, Runnable.TEAM, Runnable.WORKFLOW)
"""Kinds whose name alone says which runs."""


class RunsWanted(BaseModel):
    """Which runs. Several conditions must all hold."""

    runnable_type: Runnable | None = None
    runnable_id: Word | None = Field(default=None, description="An agent's, team's, workflow's or function's.")
    agent_id: Word | None = Field(default=None, description="Short for `runnable_type=agent&runnable_id=`.")
    team_id: Word | None = Field(default=None, description="As `agent_id`, of a team.")
    workflow_id: Word | None = Field(default=None, description="As `agent_id`, of a workflow.")
    task_id: Word | None = None
    thread_id: Word | None = None
    project_id: Word | None = None
    user_uuid: Word | None = None
    status: Annotated[RunStatus | None, BeforeValidator(_plain_status)] = Field(
        default=None, description="`COMPLETED` is `succeeded`."
    )
    created_after: Time | None = Field(default=None, description="At that time or later.")
    created_before: Time | None = None
    label: list[Label] = Field(default=[], max_length=10, description="`name:value`; several must all be there.")

    def filter(self) -> RunFilter:
        """Raises AppError INVALID_REQUEST."""
        kind, name = self._runnable()
        return RunFilter(
            thread_id=self.thread_id,
            project=self.project_id,
            runnable_type=kind,
            runnable_id=name,
            task_id=self.task_id,
            status=self.status,
            user_uuid=self.user_uuid,
            since=self.created_after,
            until=self.created_before,
            labels=_labels(self.label),
        )

    def _runnable(self) -> tuple[str | None, str | None]:
        """Raises AppError INVALID_REQUEST where two different ones are asked for."""
        short = {kind: name for kind in _SHORT if (name := getattr(self, f"{kind}_id"))}
        kinds = {*short, self.runnable_type} - {None}
        names = {*short.values(), self.runnable_id} - {None}
        if len(kinds) > 1 or len(names) > 1:
            raise invalid(
                [FieldError(place="query.runnable_id", detail="a run is of one thing, and these are several")]
            )
        return next(iter(kinds), None), next(iter(names), None)


class RunQuery(RunsWanted):
    limit: Limit = 50
    cursor: Cursor = None


def _labels(given: list[str]) -> dict[str, str]:
    pairs = [label.partition(":") for label in given]
    if not all(colon for _, colon, _ in pairs):
        raise invalid([FieldError(place="query.label", detail="should be name:value")])
    return {name: value for name, _, value in pairs}
