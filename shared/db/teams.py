"""Teams: a leader and members, all agents of the same workspace."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import delete, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.db.rows import Place
from shared.db.table_rows import Rows
from shared.db.tables.catalogue import team_members, teams
from shared.tenant import Tenant
from shared.types import JSON

Mode = Literal["coordinate", "route", "broadcast"]


@dataclass(frozen=True, slots=True)
class TeamRow:
    """`leader`: an agent's id."""

    id: str
    workspace: str
    name: str
    mode: Mode
    leader: str
    created_at: datetime
    updated_at: datetime
    project: str | None = None
    description: str = ""
    instructions: str = ""
    limits: JSON = field(default_factory=dict)
    knowledge: JSON = field(default_factory=dict)
    storage: JSON = field(default_factory=dict)
    metadata: JSON = field(default_factory=dict)
    version: int = 1


@dataclass(frozen=True, slots=True)
class Team:
    """`members`: ids of agents, in their order."""

    row: TeamRow
    members: list[str]


ROWS = Rows(teams, TeamRow, "team")


async def get(c: AsyncConnection, tenant: Tenant, team_id: str, *, to_change: bool = False) -> Team | None:
    row = await ROWS.get(c, tenant, team_id, to_change=to_change)
    return None if row is None else (await _with_members(c, [row]))[0]


async def existing(c: AsyncConnection, tenant: Tenant, team_id: str, *, to_change: bool = False) -> Team:
    """Raises AppError NOT_FOUND."""
    return (await _with_members(c, [await ROWS.existing(c, tenant, team_id, to_change=to_change)]))[0]


async def page(
    c: AsyncConnection, tenant: Tenant, only: Mapping[str, Any], *, after: Place | None = None, limit: int
) -> list[Team]:
    """Newest first."""
    return await _with_members(c, await ROWS.page(c, tenant, only, after=after, limit=limit))


async def add(c: AsyncConnection, new: Team) -> Team:
    """Idempotent by id. Raises as `Rows.add`: an agent that is not there is INVALID_REQUEST."""
    row = await ROWS.add(c, new.row)
    if row is not new.row:
        return (await _with_members(c, [row]))[0]
    await _set_members(c, row, new.members)
    return new


async def change(
    c: AsyncConnection, old: Team, values: Mapping[str, Any], *, members: Sequence[str] | None, expected: int | None
) -> Team:
    """`old` as read in this transaction, to be changed. `members` None: as they are. Raises as `Rows`."""
    row = await ROWS.change(c, old.row, values, expected=expected)
    if members is None:
        return replace(old, row=row)
    await c.execute(delete(team_members).where(_of(row)))
    await _set_members(c, row, members)
    return Team(row, list(members))


async def _set_members(c: AsyncConnection, team: TeamRow, members: Sequence[str]) -> None:
    rows = [
        {"workspace": team.workspace, "team": team.id, "agent": agent, "position": position}
        for position, agent in enumerate(members)
    ]
    try:
        if rows:
            await c.execute(insert(team_members), rows)
    except IntegrityError as error:
        raise ROWS.understood(error) from error


async def _with_members(c: AsyncConnection, rows: list[TeamRow]) -> list[Team]:
    members: dict[str, list[str]] = defaultdict(list)
    ids = [row.id for row in rows]
    query = select(team_members).where(team_members.c.team.in_(ids)).order_by(team_members.c.position)
    for member in (await c.execute(query)).mappings():
        members[member["team"]].append(member["agent"])
    return [Team(row, members[row.id]) for row in rows]


def _of(team: TeamRow) -> Any:
    return (team_members.c.workspace == team.workspace) & (team_members.c.team == team.id)
