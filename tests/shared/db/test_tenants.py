"""Workspaces, projects, keys and the audit log as rows."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from shared.db import audit, keys, projects, workspaces
from shared.db.audit import Entry, Filter
from shared.db.engine import Database
from shared.db.keys import Key
from shared.db.projects import Project
from shared.db.rows import Place
from shared.db.workspaces import Workspace
from shared.errors import AppError, ErrorCode
from shared.tenant import Tenant
from shared.types import Scope

NOW = datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=UTC)
WORKSPACE = Workspace("w2", "two", "Two", {"a": 1}, version=1, created_at=NOW, updated_at=NOW)
PROJECT = Project("p", "w2", "P", "", {}, version=1, created_at=NOW, updated_at=NOW)
KEY = Key("k", "w2", "p", "k", "tl_k", frozenset({Scope.READ}), "me", NOW, None, None, None)
ENTRY = Entry("e", "w2", NOW, "k", None, "createKey", "key", "k", "done", "r", "::1", {"status": 201})


@pytest.fixture
async def rows(database: Database) -> Database:
    async with database.begin() as c:
        await workspaces.add(c, WORKSPACE)
        await projects.add(c, PROJECT)
        await keys.add(c, KEY, "digest")
        await audit.add(c, [ENTRY])
    return database


async def test_rows_come_back_as_they_went_in(rows: Database) -> None:
    async with rows.connect() as c:
        assert await workspaces.get(c, "w2") == await workspaces.by_slug(c, "two") == WORKSPACE
        assert await projects.get(c, Tenant("w2"), "p") == await projects.get(c, Tenant("w2", "p"), "p") == PROJECT
        assert await keys.get(c, "w2", "k") == await keys.by_digest(c, "digest") == KEY
        assert await audit.page(c, "w2", Filter(), after=None, limit=9) == [ENTRY]


async def test_what_is_of_another_workspace_is_not_there(rows: Database) -> None:
    async with rows.begin() as c:
        for stranger in (Tenant("default"), Tenant("w2", "another")):
            assert await projects.get(c, stranger, "p") is None
            assert await projects.page(c, stranger, {}, limit=9) == []
        assert await keys.get(c, "default", "k") is None
        await keys.revoke(c, "default", "k", NOW)
        assert await keys.page(c, "default", project=None, after=None, limit=9) == []
        assert await audit.page(c, "default", Filter(), after=None, limit=9) == []
        assert (await keys.get(c, "w2", "k")) == KEY


async def test_what_is_made_again_under_its_id_is_as_it_was(rows: Database) -> None:
    async def again(number: int) -> tuple[Workspace, Project, Key]:
        async with rows.begin() as c:
            return (
                await workspaces.add(c, replace(WORKSPACE, id="w3", slug=f"s{number}")),
                await projects.add(c, replace(PROJECT, id="p3", name=f"n{number}")),
                await keys.add(c, replace(KEY, id="k3", name=f"n{number}"), f"digest {number}"),
            )

    found = await asyncio.gather(*map(again, range(8)))
    assert all(each == found[0] for each in found)


async def test_a_slug_or_name_that_another_has_is_a_conflict(rows: Database) -> None:
    for change in (
        lambda c: workspaces.add(c, replace(WORKSPACE, id="w3")),
        lambda c: workspaces.change(c, "w2", {"slug": "default"}, expected=None),
        lambda c: projects.add(c, replace(PROJECT, id="p2")),
    ):
        with pytest.raises(AppError, match=r"Another workspace|of this name already"):
            async with rows.begin() as c:
                await change(c)


async def test_of_many_that_change_the_version_they_read_one_succeeds(rows: Database) -> None:
    async def rename(number: int) -> bool:
        try:
            async with rows.begin() as c:
                read = await projects.existing(c, Tenant("w2"), "p", to_change=True)
                changed = await projects.change(c, read, {"name": f"n{number}"}, expected=1)
        except AppError as error:
            return error.code is not ErrorCode.CONFLICT
        assert changed.version == 2
        return True

    assert sum(await asyncio.gather(*map(rename, range(8)))) == 1


async def test_pages_go_on_where_the_last_one_ended_even_at_the_same_time(rows: Database) -> None:
    async with rows.begin() as c:
        for number in range(5):
            await projects.add(c, replace(PROJECT, id=f"q{number}", name=f"q{number}"))
        await projects.add(c, replace(PROJECT, id="a", name="newest", created_at=NOW + timedelta(microseconds=1)))
        found: list[str] = []
        place = None
        while page := await projects.page(c, Tenant("w2"), {}, after=place, limit=2):
            found += [project.id for project in page]
            place = Place(page[-1].created_at, page[-1].id)
    assert found == ["a", "q4", "q3", "q2", "q1", "q0", "p"]


async def test_a_project_with_a_key_stays_until_the_key_is_revoked(rows: Database) -> None:
    with pytest.raises(AppError) as error:
        async with rows.begin() as c:
            await projects.remove(c, PROJECT)
    assert error.value.code is ErrorCode.CONFLICT
    async with rows.begin() as c:
        await keys.revoke(c, "w2", "k", NOW)
        await projects.remove(c, PROJECT)
        assert await projects.get(c, Tenant("w2"), "p") is None


async def test_a_workspace_takes_what_is_its_own_with_it_but_for_the_audit_log(rows: Database) -> None:
    async with rows.begin() as c:
        assert await keys.of_workspace(c, "w2") == ["k"]
        assert await workspaces.remove(c, "w2")
    async with rows.connect() as c:
        assert await keys.by_digest(c, "digest") is None
        assert await projects.get(c, Tenant("w2"), "p") is None
        assert len(await audit.page(c, "w2", Filter(), after=None, limit=9)) == 1


async def test_a_key_is_revoked_once_and_its_last_use_never_goes_back(rows: Database) -> None:
    async with rows.begin() as c:
        for minutes in (2, 1):
            time = NOW + timedelta(minutes=minutes)
            await keys.used(c, {"k": time, "gone": time})
            await keys.revoke(c, "w2", "k", time)
        found = await keys.get(c, "w2", "k")
        assert await keys.of_workspace(c, "w2") == []
    assert found
    assert found.last_used_at == found.revoked_at == NOW + timedelta(minutes=2)


async def test_the_audit_log_is_searched_and_forgotten(rows: Database) -> None:
    later = replace(ENTRY, id="f", at=NOW + timedelta(days=1), actor=None, action="getRun", outcome="refused")
    async with rows.begin() as c:
        await audit.add(c, [later])
        for wanted, ids in (
            (Filter(), ["f", "e"]),
            (Filter(actor="k"), ["e"]),
            (Filter(action="getRun", outcome="refused"), ["f"]),
            (Filter(action="getRun", outcome="done"), []),
            (Filter(resource_id="k", since=NOW, until=later.at), ["e"]),
        ):
            assert [entry.id for entry in await audit.page(c, "w2", wanted, after=None, limit=9)] == ids
        await audit.forget(c, later.at)
        assert [entry.id for entry in await audit.page(c, "w2", Filter(), after=None, limit=9)] == ["f"]
