import asyncio
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError, IntegrityError

from shared.db import agents, contexts, messages
from shared.db.agents import Agent, AgentFilter, AgentStatus
from shared.db.contexts import NewVersion
from shared.db.engine import Database
from shared.db.messages import AgentMessage
from shared.db.rows import Place
from shared.db.tables.agents import agent_messages, context_versions
from shared.db.tables.agents import agents as agents_table
from shared.db.tables.tenants import projects, workspaces
from shared.errors import AppError, ErrorCode
from shared.ids import new_id
from shared.tenant import Tenant
from shared.types import JSON

MOMENT = datetime(2026, 11, 21, 12, tzinfo=UTC)


def an_agent(**fields: Any) -> Agent:
    now = datetime.now(UTC)
    given = {"id": new_id(), "workspace": "default", "definition": "chat", "name": "A", "created_at": now}
    return Agent(**{**given, "updated_at": now, **fields})


async def added(database: Database, **fields: Any) -> Agent:
    async with database.begin() as c:
        return await agents.add(c, an_agent(**fields))


async def foreign_workspace(database: Database) -> None:
    changes = {"version": 1, "created_at": MOMENT, "updated_at": MOMENT, "metadata": {}}
    async with database.begin() as c:
        await c.execute(workspaces.insert().values(id="w2", slug="w2", name="W2", **changes))
        await c.execute(projects.insert().values(id="p2", workspace="w2", name="P", **changes))


async def write(database: Database, agent: Agent, data: Mapping[str, Any], **options: Any) -> int:
    async with database.begin() as c:
        assert await agents.get(c, Tenant(agent.workspace), agent.id, to_change=True)
        options = {"keep": 10, **options}
        return (await contexts.write(c, agent, "default", NewVersion(new_id(), dict(data)), **options)).number


async def test_an_agent_comes_back_as_it_was_added(database: Database) -> None:
    agent = await added(database, temperature=0.5, tools=["bash"], limits={"max_turns": 3}, metadata={"a": [1, None]})
    async with database.connect() as c:
        assert await agents.get(c, Tenant("default"), agent.id) == agent
        assert await agents.get(c, Tenant("w2"), agent.id) is None


async def test_an_agent_cannot_be_of_another_workspaces_project(database: Database) -> None:
    await foreign_workspace(database)
    with pytest.raises(AppError, match="names something that is not there") as refused:
        await added(database, project="p2")
    assert refused.value.code is ErrorCode.INVALID_REQUEST
    await added(database, workspace="w2", project="p2")


@pytest.mark.parametrize("wrong", [{"status": "asleep"}, {"name": ""}, {"version": 0}, {"hook_run": "r"}])
async def test_the_database_itself_refuses_what_an_agent_cannot_be(database: Database, wrong: JSON) -> None:
    agent = await added(database)
    with pytest.raises(IntegrityError):
        async with database.begin() as c:
            await c.execute(agents_table.update().where(agents_table.c.id == agent.id).values(**wrong))


async def test_a_list_is_newest_first_whole_and_without_doubles_in_pages(database: Database) -> None:
    made = [await added(database, created_at=MOMENT + timedelta(seconds=n // 2)) for n in range(7)]
    expected = [agent.id for agent in sorted(made, key=lambda agent: (agent.created_at, agent.id), reverse=True)]
    found: list[Agent] = []
    async with database.connect() as c:
        while True:
            after = Place(found[-1].created_at, found[-1].id) if found else None
            page = await agents.page(c, Tenant("default"), AgentFilter(), after=after, limit=3)
            found += page
            if len(page) < 3:
                break
        skipped = await agents.page(c, Tenant("default"), AgentFilter(), limit=3, skip=5)
    assert [agent.id for agent in found] == expected
    assert [agent.id for agent in skipped] == expected[5:]


async def test_a_list_has_what_its_filter_asks_for(database: Database) -> None:
    await added(database, definition="coder")
    active = await added(database, status=AgentStatus.ACTIVE)
    async with database.connect() as c:
        assert await agents.page(c, Tenant("default"), AgentFilter(status=AgentStatus.ACTIVE), limit=9) == [active]
        assert (
            await agents.page(c, Tenant("default"), AgentFilter(definition="coder", status=active.status), limit=9)
            == []
        )
        assert await agents.page(c, Tenant("w2"), AgentFilter(), limit=9) == []


async def test_a_change_raises_the_version_and_one_of_a_stale_version_is_refused(database: Database) -> None:
    agent = await added(database)
    async with database.begin() as c:
        changed = await agents.change(c, agent, {"name": "B"}, expected=1)
    assert (changed.name, changed.version) == ("B", 2)
    with pytest.raises(AppError, match="it has 2") as refused:
        async with database.begin() as c:
            await agents.change(c, changed, {"name": "C"}, expected=1)
    assert refused.value.code is ErrorCode.CONFLICT


async def test_a_context_is_a_line_of_versions_of_which_the_newest_remain(database: Database) -> None:
    agent = await added(database)
    for number in range(1, 6):
        assert await write(database, agent, {"n": number}, keep=3) == number
    async with database.connect() as c:
        found = await contexts.versions(c, agent, "default", before=None, limit=10)
        older = await contexts.versions(c, agent, "default", before=5, limit=1)
        now = await contexts.current(c, agent, "default")
        with pytest.raises(AppError, match="versions 3 to 5 are kept"):
            await contexts.version(c, agent, "default", 2)
        with pytest.raises(AppError, match="it has none yet"):
            await contexts.version(c, agent, "other", 2)
    assert [(version.number, version.data) for version in found] == [(5, {"n": 5}), (4, {"n": 4}), (3, {"n": 3})]
    assert [version.number for version in older] == [4]
    assert now == found[0]


async def test_a_write_that_expects_another_version_is_refused_and_changes_nothing(database: Database) -> None:
    agent = await added(database)
    await write(database, agent, {"n": 1}, expected=0)
    for stale in (0, 2):
        with pytest.raises(AppError) as refused:
            await write(database, agent, {"n": 2}, expected=stale)
        assert refused.value.code is ErrorCode.CONFLICT
    async with database.connect() as c:
        assert [v.number for v in await contexts.versions(c, agent, "default", before=None, limit=9)] == [1]


async def test_a_version_never_changes(database: Database) -> None:
    await write(database, await added(database), {"n": 1})
    with pytest.raises(DBAPIError, match="is final"):
        async with database.begin() as c:
            await c.execute(context_versions.update().values(note="not what it was"))


async def test_messages_are_kept_up_to_a_number_and_acknowledged_in_time(database: Database) -> None:
    agent = await added(database)
    now = datetime.now(UTC)
    ids = [new_id() for _ in range(5)]
    async with database.begin() as c:
        for number, message_id in enumerate(ids):
            until = now + timedelta(seconds=60 if number % 2 else -1)
            sent = now + timedelta(milliseconds=number)
            new = AgentMessage(message_id, "default", agent.id, "user", None, "hi", {}, sent, until)
            assert await messages.add(c, new, keep=3) == new
            assert await messages.add(c, new, keep=3) == new
        found = await messages.page(c, agent, limit=10)
        assert [message.id for message in found] == ids[:1:-1]
        first = await messages.acknowledge(c, agent, ids[3])
        assert first.acknowledged_at is not None
        assert await messages.acknowledge(c, agent, ids[3]) == first
        with pytest.raises(AppError, match="could be acknowledged until") as late:
            await messages.acknowledge(c, agent, ids[4])
        with pytest.raises(AppError, match="no message"):
            await messages.acknowledge(c, agent, ids[0])
        assert [m.id for m in await messages.page(c, agent, limit=9, acknowledged=False)] == [ids[4], ids[2]]
        assert [m.id for m in await messages.page(c, agent, limit=9, acknowledged=True)] == [ids[3]]
    assert late.value.code is ErrorCode.CONFLICT


async def test_a_message_of_an_id_that_is_none_is_not_there(database: Database) -> None:
    agent = await added(database)
    for message_id in ("a\0b", "", new_id()):
        async with database.begin() as c:
            with pytest.raises(AppError) as refused:
                await messages.acknowledge(c, agent, message_id)
        assert refused.value.code is ErrorCode.NOT_FOUND


async def test_a_message_that_is_sent_by_several_at_once_under_one_id_is_there_once(database: Database) -> None:
    agent = await added(database)
    message = AgentMessage(new_id(), "default", agent.id, "user", None, "hi", {}, MOMENT, MOMENT)

    async def send(number: int) -> AgentMessage:
        async with database.begin() as c:
            return await messages.add(c, replace(message, content=f"hi {number}"), keep=9)

    found = await asyncio.gather(*map(send, range(8)))
    assert all(each == found[0] for each in found)


async def test_contexts_and_messages_are_of_an_agent_of_their_workspace_and_go_with_it(database: Database) -> None:
    await foreign_workspace(database)
    agent = await added(database)
    await write(database, agent, {"n": 1})
    message = AgentMessage(new_id(), "default", agent.id, "user", None, "hi", {}, MOMENT, MOMENT)
    with pytest.raises(IntegrityError):
        async with database.begin() as c:
            await c.execute(agent_messages.insert().values(**asdict(replace(message, workspace="w2"))))
    async with database.begin() as c:
        await messages.add(c, message, keep=9)
    async with database.begin() as c:
        await agents.delete(c, agent, expected=1)
    async with database.connect() as c:
        assert (await c.execute(context_versions.select())).all() == []
        assert (await c.execute(agent_messages.select())).all() == []
