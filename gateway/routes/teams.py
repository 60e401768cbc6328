"""Teams: a leader agent and members, kept for runs of teams."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Self

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from gateway.agents.known import check_enabled
from gateway.auth import Principal
from gateway.catalogue.begun import begun
from gateway.deps import Caller, IdempotencyKey, Services, WithServices, Writer
from gateway.errors import invalid
from gateway.openapi import errors
from gateway.routes.agent_bodies import Limits
from gateway.routes.answers import Page, Timestamp, locate
from gateway.routes.bodies import JsonObject, Name
from gateway.routes.json_route import StrictJsonRoute
from gateway.routes.paging import Cursor, InProject, Limit, page_of, place_of
from gateway.routes.row_bodies import RowFields, RowPatch, aliases
from gateway.routes.versions import IfMatch, expected_version, tag
from shared.db import agents, teams
from shared.db.rows import Place
from shared.db.teams import Mode, Team, TeamRow
from shared.errors import FieldError
from shared.types import JSON

router = APIRouter(prefix="/teams", tags=["teams"], route_class=StrictJsonRoute, dependencies=[Depends(check_enabled)])

Members = Annotated[list[Name], Field(max_length=100)]


class TeamFields(RowFields):
    instructions: Annotated[str, Field(max_length=100_000)] | None = Field(
        default=None, description="What all of the team are told."
    )
    limits: Limits | None = None
    knowledge_config: JsonObject | None = Field(
        default=None, validation_alias=aliases("knowledge_config", "knowledgeConfig"), description="Kept for you."
    )
    storage_config: JsonObject | None = Field(
        default=None, validation_alias=aliases("storage_config", "storageConfig"), description="Kept for you."
    )
    member_agent_ids: Members | None = Field(
        default=None,
        validation_alias=aliases("member_agent_ids", "memberAgentIds"),
        description="Agents of the workspace, in this order.",
    )

    @model_validator(mode="after")
    def _names_each_once(self) -> Self:
        members = self.member_agent_ids or []
        if twice := sorted({each for each in members if members.count(each) > 1}):
            raise ValueError(f"member_agent_ids has {', '.join(twice)} twice")
        return self

    def columns(self) -> JSON:
        """Without the members, who have a table of their own."""
        found = super().columns()
        found.pop("member_agent_ids", None)
        return found


class TeamBody(TeamFields):
    name: Name
    leader_agent_id: Name = Field(
        validation_alias=aliases("leader_agent_id", "leaderAgentId"), description="An agent of the workspace."
    )
    mode: Mode = Field(
        default="coordinate",
        description="coordinate: the leader splits the work and puts it together; route: it picks who does it all; "
        "broadcast: all do it, and the leader makes one answer of theirs.",
    )

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "Release",
                    "leader_agent_id": "01jd5c2m9k7x4q8w3v6t0r5y1z",
                    "member_agent_ids": ["01jd5c2m9k7x4q8w3v6t0r5y20"],
                    "mode": "coordinate",
                }
            ]
        }
    )


class TeamPatch(TeamFields, RowPatch):
    name: Name | None = None
    leader_agent_id: Name | None = Field(default=None, validation_alias=aliases("leader_agent_id", "leaderAgentId"))
    mode: Mode | None = None

    model_config = ConfigDict(json_schema_extra={"examples": [{"mode": "route", "expected_version": 2}]})

    @classmethod
    def needed(cls) -> frozenset[str]:
        return frozenset({"name", "leader_agent_id", "mode"})


class TeamAnswer(BaseModel):
    id: str
    name: str
    description: str
    project_id: str | None
    mode: Mode
    leader_agent_id: str
    member_agent_ids: list[str]
    instructions: str
    limits: JSON
    knowledge_config: JSON
    storage_config: JSON
    metadata: JSON
    version: int
    created_at: Timestamp
    updated_at: Timestamp

    @classmethod
    def of(cls, team: Team) -> Self:
        row = team.row
        same = ("id", "name", "description", "mode", "instructions", "limits", "metadata", "version")
        return cls(
            project_id=row.project,
            leader_agent_id=row.leader,
            member_agent_ids=team.members,
            knowledge_config=row.knowledge,
            storage_config=row.storage,
            **{name: getattr(row, name) for name in (*same, "created_at", "updated_at")},
        )


@router.get("", operation_id="listTeams", summary="List teams, newest first", responses=errors(400, 501))
async def list_teams(
    services: WithServices, caller: Caller, limit: Limit = 50, cursor: Cursor = None, project_id: InProject = None
) -> Page[TeamAnswer]:
    after = place_of(cursor)
    async with services.db.connect() as c:
        found = await teams.page(c, caller.tenant, {"project": project_id}, after=after, limit=limit + 1)
    return page_of(found, limit, TeamAnswer.of, lambda team: Place(team.row.created_at, team.row.id))


@router.post(
    "", operation_id="createTeam", summary="Make a team", status_code=201, responses=errors(400, 409, 413, 501)
)
async def create_team(
    body: TeamBody, response: Response, services: WithServices, caller: Writer, idempotency_key: IdempotencyKey = None
) -> TeamAnswer:
    """Of agents of the workspace. None of them can be deleted while it is in the team."""
    team_id, team = await begun(services, caller, teams.get, idempotency_key, ["team", body.model_dump()])
    locate(response, "teams", team_id)
    return _tagged(response, team or await _made(services, caller, team_id, body))


async def _made(services: Services, caller: Principal, team_id: str, body: TeamBody) -> Team:
    """Raises AppError INVALID_REQUEST, NOT_FOUND."""
    given = await services.auth.workspaces.in_project(caller, {"mode": body.mode, **body.columns()}, new=True)
    await _check_agents(services, caller, body.leader_agent_id, body.member_agent_ids)
    now = datetime.now(UTC)
    row = TeamRow(id=team_id, workspace=caller.workspace, created_at=now, updated_at=now, **given)
    async with services.db.begin() as c:
        return await teams.add(c, Team(row, body.member_agent_ids or []))


@router.get("/{team_id}", operation_id="getTeam", summary="A team", responses=errors(404, 501))
async def get_team(team_id: str, response: Response, services: WithServices, caller: Caller) -> TeamAnswer:
    async with services.db.connect() as c:
        return _tagged(response, await teams.existing(c, caller.tenant, team_id))


@router.patch(
    "/{team_id}", operation_id="updateTeam", summary="Change a team", responses=errors(400, 404, 409, 413, 501)
)
async def update_team(
    team_id: str,
    body: TeamPatch,
    *,
    response: Response,
    services: WithServices,
    caller: Writer,
    if_match: IfMatch = None,
) -> TeamAnswer:
    """What is not given stays. Members that are given take the place of those before."""
    expected = expected_version(if_match, body.expected_version)
    members = (body.member_agent_ids or []) if "member_agent_ids" in body.model_fields_set else None
    values = await services.auth.workspaces.in_project(caller, body.columns(), new=False)
    await _check_agents(services, caller, body.leader_agent_id, members)
    async with services.db.begin() as c:
        team = await teams.existing(c, caller.tenant, team_id, to_change=True)
        team = await teams.change(c, team, values, members=members, expected=expected)
    return _tagged(response, team)


@router.delete(
    "/{team_id}",
    operation_id="deleteTeam",
    summary="Delete a team",
    status_code=204,
    responses=errors(400, 404, 409, 501),
)
async def delete_team(team_id: str, services: WithServices, caller: Writer, if_match: IfMatch = None) -> None:
    """Its agents stay."""
    expected = expected_version(if_match)
    async with services.db.begin() as c:
        team = await teams.existing(c, caller.tenant, team_id, to_change=True)
        await teams.ROWS.delete(c, team.row, expected=expected)


async def _check_agents(
    services: Services, caller: Principal, leader: str | None, members: Sequence[str] | None
) -> None:
    """That they are there. Raises AppError INVALID_REQUEST."""
    named = {f"body.member_agent_ids.{number}": each for number, each in enumerate(members or [])}
    named |= {"body.leader_agent_id": leader} if leader else {}
    async with services.db.connect() as c:
        missing = await agents.missing(c, caller.tenant, named.values())
    if missing:
        detail = "there is no agent {}"
        raise invalid(
            [FieldError(place=place, detail=detail.format(each)) for place, each in named.items() if each in missing]
        )


def _tagged(response: Response, team: Team) -> TeamAnswer:
    tag(response, team.row.version)
    return TeamAnswer.of(team)
