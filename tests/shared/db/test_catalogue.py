import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from shared.db import agents, tasks, teams, tools, workflows
from shared.db.agents import Agent
from shared.db.engine import Database
from shared.db.tasks import Task
from shared.db.teams import Team, TeamRow
from shared.db.tools import Tool
from shared.db.workflows import Workflow
from shared.errors import AppError, ErrorCode
from shared.ids import new_id
from shared.tenant import Tenant

GRAPH: dict[str, list[int]] = {"nodes": [], "edges": []}


def fields(**given: Any) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {"id": new_id(), "workspace": "default", "created_at": now, "updated_at": now, **given}


async def an_agent(database: Database) -> str:
    async with database.begin() as c:
        return (await agents.add(c, Agent(**fields(definition="chat", name="A")))).id


def a_tool(**given: Any) -> Tool:
    return Tool(**fields(**{"name": "weather", "description": "Tells it", "type": "http", "config": {}, **given}))


async def a_team(database: Database, members: list[str], **given: Any) -> Team:
    row = TeamRow(**fields(**{"name": "T", "mode": "route", **given}))
    async with database.begin() as c:
        return await teams.add(c, Team(row, members))


async def test_what_is_added_comes_back_to_its_workspace_only(database: Database) -> None:
    tool, task = a_tool(output_schema={"type": "object"}), Task(**fields(name="t", runnable_type="agent", input=[1]))
    async with database.begin() as c:
        await tools.ROWS.add(c, tool)
        await tasks.ROWS.add(c, task)
    async with database.connect() as c:
        assert await tools.ROWS.get(c, Tenant("default"), tool.id) == tool
        assert await tools.ROWS.get(c, Tenant("other"), tool.id) is None
        assert await tasks.ROWS.page(c, Tenant("default"), {}, limit=10) == [task]
        assert await tasks.ROWS.page(c, Tenant("default"), {"runnable_type": "team"}, limit=10) == []


async def test_a_name_is_one_tools(database: Database) -> None:
    async with database.begin() as c:
        await tools.ROWS.add(c, a_tool())
    with pytest.raises(AppError, match="tool of this name already") as refused:
        async with database.begin() as c:
            await tools.ROWS.add(c, a_tool())
    assert refused.value.code is ErrorCode.CONFLICT


async def test_what_is_added_by_several_at_once_under_one_id_is_as_the_first_made_it(database: Database) -> None:
    leader, row_id = await an_agent(database), new_id()

    async def add(number: int) -> tuple[Tool, Team, Workflow]:
        given = {"id": row_id, "name": f"n{number}"}
        async with database.begin() as c:
            return (
                await tools.ROWS.add(c, a_tool(**given)),
                await teams.add(c, Team(TeamRow(**fields(mode="route", leader=leader, **given)), [leader])),
                await workflows.add(c, Workflow(**fields(graph=GRAPH, **given)), by=None),
            )

    found = await asyncio.gather(*map(add, range(8)))
    assert all(each == found[0] for each in found)


async def test_what_was_changed_since_it_was_read_is_not_written_over(database: Database) -> None:
    async with database.begin() as c:
        read = await tools.ROWS.add(c, a_tool())
        changed = await tools.ROWS.change(c, read, {"description": "other"}, expected=1)
    assert (changed.version, changed.description) == (2, "other")
    with pytest.raises(AppError, match="it has 2"):
        async with database.begin() as c:
            await tools.ROWS.change(c, changed, {"description": "mine"}, expected=1)
    with pytest.raises(AppError, match="it has 2"):
        async with database.begin() as c:
            await tools.ROWS.delete(c, changed, expected=1)


async def test_a_team_is_of_agents_that_are_there_and_cannot_go_while_it_is(database: Database) -> None:
    leader, member = await an_agent(database), await an_agent(database)
    with pytest.raises(AppError) as refused:
        await a_team(database, ["nobody"], leader=leader)
    assert refused.value.code is ErrorCode.INVALID_REQUEST
    team = await a_team(database, [member, leader], leader=leader)
    async with database.connect() as c:
        assert await teams.get(c, Tenant("default"), team.row.id) == team
        found = await agents.get(c, Tenant("default"), member)
    assert found
    with pytest.raises(AppError, match="needs agent"):
        async with database.begin() as c:
            await agents.delete(c, found)
    async with database.begin() as c:
        await teams.change(c, team, {}, members=[leader], expected=1)
        await agents.delete(c, found)
    async with database.connect() as c:
        assert (await teams.page(c, Tenant("default"), {}, limit=10))[0].members == [leader]


async def test_another_graph_is_another_version_and_other_changes_are_not(database: Database) -> None:
    async with database.begin() as c:
        first = await workflows.add(c, Workflow(**fields(name="W", graph=GRAPH)), by="k1")
        renamed = await workflows.change(c, first, {"name": "V", "graph": GRAPH}, by="k1")
        other = {**GRAPH, "edges": [1]}
        latest = await workflows.change(c, renamed, {"graph": other}, note="why", by="k2", expected=2)
        kept = await workflows.versions(c, latest, before=None, limit=10)
    assert (latest.version, latest.graph_version, latest.name) == (3, 2, "V")
    assert [(each.number, each.graph, each.note, each.created_by) for each in kept] == [
        (2, other, "why", "k2"),
        (1, GRAPH, "", "k1"),
    ]


async def test_a_tasks_latest_run_is_kept_without_a_new_version(database: Database) -> None:
    async with database.begin() as c:
        task = await tasks.ROWS.add(c, Task(**fields(name="t", runnable_type="agent")))
        for run_id in ("t2.r1", "t1.r2", "t2.r1"):
            await tasks.began(c, "default", task.id, run_id)
        assert await tasks.ROWS.get(c, Tenant("default"), task.id) == replace(task, last_run="t1.r2")
        await tasks.began(c, "default", "gone", "t1.r1")
