"""The audit log: what was changed, by whom, and who was refused; whatever becomes of SQL meanwhile."""

import asyncio
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.audit import LEFT_OUT, AuditLog
from gateway.metrics import GatewayMetrics
from gateway.strangers import PER_ADDRESS
from shared.config import AuditSettings, DatabaseSettings
from shared.db import audit
from shared.db.audit import Entry
from shared.db.engine import Database
from shared.ids import new_id
from shared.metrics import exposition
from tests.gateway.support import Gateway, serving, settings_for, until
from tests.gateway.tenants import client_of, new_key, new_workspace, waiting_run
from tests.gateway.websockets import refusal, websocket
from tests.support.databases import PostgresDatabases
from tests.support.metrics import value
from tests.support.postgres import Postgres


async def logged(gateway: Gateway, **params: Any) -> list[dict[str, Any]]:
    await gateway.app.state.services.audit.write()
    answer = await gateway.client.get("/api/audit", params=params)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def entry(**fields: Any) -> Entry:
    known = dict.fromkeys(Entry.__slots__)
    needed = {"id": new_id(), "workspace": "default", "at": datetime.now(UTC), "action": "a", "outcome": "done"}
    needed["actor"] = "a-key"
    return Entry(**{**known, **needed, **fields})


async def test_changes_are_written_down_with_who_and_what(sql_gateway: Gateway) -> None:
    headers = {"X-Request-Id": "request-0001"}
    made = (await sql_gateway.client.post("/api/keys", json={"name": "k"}, headers=headers)).json()
    thread = await sql_gateway.thread()
    await sql_gateway.execute(thread)
    await sql_gateway.client.get(f"/api/agent/{thread}")
    await sql_gateway.client.post(f"/api/agent/{thread}/execute", json={"nonsense": 1})
    await sql_gateway.client.post("/api/stream-tickets")
    await sql_gateway.client.post("/api/workflows/validate", json={"graph": {"nodes": [], "edges": []}})
    forked = (await sql_gateway.client.post(f"/api/agent/{thread}/fork")).json()["thread_id"]
    fork, execute, initiate, create = await logged(sql_gateway)
    assert [create["action"], initiate["action"], execute["action"]] == ["createKey", "initiateThread", "execute"]
    assert (create["resource_type"], create["resource_id"]) == ("key", made["id"])
    for each in (initiate, execute, fork):
        assert (each["resource_type"], each["resource_id"]) == ("thread", thread)
    assert fork["detail"] == {"status": 200, "made": f"/api/agent/{forked}"}
    assert (create["request_id"], create["address"], create["outcome"]) == ("request-0001", "127.0.0.1", "done")
    assert create["actor"] == made["created_by"] == execute["actor"]
    assert made["key"] not in str(create)


async def test_refused_accesses_are_written_down(sql_gateway: Gateway) -> None:
    workspace = await new_workspace(sql_gateway, "acme")
    key = await new_key(sql_gateway, workspace, scopes=["read"])
    async with client_of(sql_gateway, key) as client, client_of(sql_gateway, "tl_wrong") as stranger:
        assert (await client.post("/api/agent/initiate")).status_code == 403
        assert (await client.get("/api/audit")).status_code == 403
        assert (await stranger.get("/api/runs/x%00y")).status_code == 401
    [unknown] = await logged(sql_gateway, outcome="refused")
    assert (unknown["actor"], unknown["action"], unknown["resource_id"]) == (
        None,
        "getRun",
        "x\N{REPLACEMENT CHARACTER}y",
    )
    refused = await logged(sql_gateway, outcome="refused", workspace_id=workspace)
    assert [each["action"] for each in refused] == ["listAudit", "initiateThread"]
    assert len({each["actor"] for each in refused}) == 1


async def test_what_is_done_over_a_websocket_is_written_down_as_if_it_were_asked_for_over_http(
    sql_gateway: Gateway,
) -> None:
    thread = await sql_gateway.thread()
    run = await waiting_run(sql_gateway, sql_gateway.client, thread_id=thread)
    async with websocket(sql_gateway, f"/ws/agent/{thread}") as client:
        await client.ask(type="approve", step_id=f"{run}.1", output={"approved": True})
        await client.ask(type="execute", task="x")
        await client.ask(type="cancel")
        assert (await client.ask(type="execute", nonsense=1))["status"] == 400
        assert (await client.ask(type="approve", step_id=f"{run}.1", **{"as": "done"}))["status"] == 409
    cancel, execute, approve, *_ = await logged(sql_gateway)
    assert [each["action"] for each in (cancel, execute, approve)] == ["cancelThread", "execute", "completeHumanStep"]
    assert {each["outcome"] for each in (cancel, execute, approve)} == {"done"}
    assert (execute["resource_type"], execute["resource_id"]) == ("thread", thread)
    assert (approve["resource_type"], approve["resource_id"]) == ("step", f"{run}.1")
    assert execute["detail"] == {"status": 200}
    assert execute["address"] == "127.0.0.1"
    assert execute["actor"]
    assert execute["request_id"]


async def test_refused_frames_and_refused_sockets_are_written_down(sql_gateway: Gateway) -> None:
    workspace = await new_workspace(sql_gateway, "acme")
    may_read, may_run = [await new_key(sql_gateway, workspace, scopes=[scope]) for scope in ("read", "run")]
    owner = await new_key(sql_gateway, workspace, scopes=["admin"])
    async with client_of(sql_gateway, owner) as client:
        thread = (await client.post("/api/agent/initiate")).json()["thread_id"]
    path = f"/ws/agent/{thread}"
    async with websocket(sql_gateway, path, {"x-api-key": may_read}) as client:
        assert (await client.ask(type="execute", task="x"))["status"] == 403
    assert (await refusal(sql_gateway, path, {"x-api-key": may_run}))[0] == 403
    assert (await refusal(sql_gateway, path, {"x-api-key": "tl_wrong"}))[0] == 401
    socket, frame = await logged(sql_gateway, outcome="refused", workspace_id=workspace)
    assert (frame["action"], frame["resource_id"], frame["detail"]) == ("execute", thread, {"status": 403})
    assert (socket["action"], socket["resource_id"]) == ("threadSocket", thread)
    [unknown] = await logged(sql_gateway, outcome="refused")
    assert (unknown["action"], unknown["actor"]) == ("threadSocket", None)


async def test_the_log_is_searched_and_read_page_by_page(sql_gateway: Gateway) -> None:
    for _ in range(5):
        await sql_gateway.thread()
    await sql_gateway.client.post("/api/projects", json={"name": "p"})
    assert len(await logged(sql_gateway, action="initiateThread")) == 5
    assert len(await logged(sql_gateway, action="createProject", since="2020-01-01T00:00:00Z")) == 1
    assert await logged(sql_gateway, until="2020-01-01T00:00:00Z") == []
    first = (await sql_gateway.client.get("/api/audit", params={"limit": 4})).json()
    rest = (await sql_gateway.client.get("/api/audit", params={"cursor": first["next_cursor"]})).json()
    ids = [each["id"] for each in [*first["items"], *rest["items"]]]
    assert len(set(ids)) == 6
    assert rest["next_cursor"] is None
    for wrong in ({"since": "yesterday"}, {"since": "2020-01-01T00:00:00"}, {"until": "9999-12-31T23:00:00-14:00"},
                  {"outcome": "x"}, {"actor": "\0"}):  # fmt: skip
        assert (await sql_gateway.client.get("/api/audit", params=wrong)).status_code == 400, wrong


async def test_entries_are_written_by_themselves(gateway: Gateway) -> None:
    thread = await gateway.thread()

    async def there() -> bool:
        answer = await gateway.client.get("/api/audit", params={"action": "initiateThread"})
        return len(answer.json()["items"]) == 1

    await until(there)
    assert thread


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    server = Postgres()
    server.start()
    yield server
    server.remove()


async def test_while_postgres_is_away_entries_wait_and_none_is_lost(
    own_postgres: Postgres, redis_url: str, tmp_path: Path
) -> None:
    database = DatabaseSettings(url=await PostgresDatabases(own_postgres).new())  # type: ignore[arg-type]
    async with serving(settings_for(redis_url, tmp_path, database=database)) as gateway:
        own_postgres.stop()
        threads = [await gateway.thread() for _ in range(20)]
        log: AuditLog = gateway.app.state.services.audit
        assert not await log.write()
        own_postgres.start()
        assert len(await logged(gateway, action="initiateThread")) == len(threads)
        assert log.dropped == 0


async def test_what_there_is_no_room_for_is_counted_and_told(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = GatewayMetrics()
    log = AuditLog(database, AuditSettings(max_waiting=3), metrics)
    for _ in range(5):
        log.record(entry())
    assert await log.write()
    assert await log.write()
    assert log.dropped == 2
    assert value(exposition(metrics.registry).decode(), "trunkline_audit_entries_total", outcome="lost") == 2
    assert caplog.text.count("2 entries of the audit log were lost") == 1
    async with database.connect() as c:
        assert len(await audit.page(c, "default", audit.Filter(), after=None, limit=9)) == 3


async def test_what_sql_would_never_take_is_lost_alone(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    log = AuditLog(database, AuditSettings())
    for number in range(7):
        log.record(entry(outcome="nonsense" if number == 4 else "done"))
    with caplog.at_level(logging.ERROR):
        assert await log.write()
    assert log.dropped == 1
    assert "1 entry of the audit log" in caplog.text
    async with database.connect() as c:
        assert len(await audit.page(c, "default", audit.Filter(), after=None, limit=9)) == 6


async def test_a_batch_whose_outcome_nobody_knew_is_written_again_and_is_there_once(database: Database) -> None:
    batch = [entry() for _ in range(5)]
    async with database.begin() as c:
        await audit.add(c, batch[:3])
    log = AuditLog(database, AuditSettings())
    for each in batch:
        log.record(each)
    assert await log.write()
    assert log.dropped == 0
    async with database.connect() as c:
        assert len(await audit.page(c, "default", audit.Filter(), after=None, limit=9)) == 5


async def test_whoever_is_not_known_fills_the_log_with_so_much_a_minute_and_the_rest_is_counted(
    database: Database,
) -> None:
    log = AuditLog(database, AuditSettings(unknown_per_minute=15))
    before = datetime.now(UTC) - timedelta(minutes=2)
    for number in range(100):
        log.record(entry(actor=None, outcome="refused", address="192.0.2.7", at=before))
        log.record(entry(actor=None, outcome="refused", address=f"2001:db8::{number:x}", at=before))
    log.record(entry(actor="a-key", outcome="refused", address="192.0.2.7"))
    assert await log.write()
    async with database.connect() as c:
        found = await audit.page(c, "default", audit.Filter(), after=None, limit=99)
    assert len([each for each in found if each.actor]) == 1, "whoever is known is not left out"
    of_one = [each for each in found if each.address == "192.0.2.7" and not each.actor]
    assert len(of_one) < 15, "one address does not take all that there is"
    [told] = [each for each in found if each.action == LEFT_OUT]
    assert len(found) == 15 + 2
    assert told.detail is not None
    assert told.detail["left_out"] == 200 - 15
    networks = {each["address"]: each["left_out"] for each in told.detail["most"]}
    assert networks == {"192.0.2.7": 100 - len(of_one), "2001:db8::/64": 100 - (15 - len(of_one))}


async def test_the_next_minute_has_room_again_and_a_quiet_one_tells_nothing(database: Database) -> None:
    log = AuditLog(database, AuditSettings(unknown_per_minute=1))
    now = datetime.now(UTC)
    for at in (now - timedelta(minutes=5), now - timedelta(minutes=3), now):
        log.record(entry(actor=None, outcome="refused", address="192.0.2.7", at=at))
        assert await log.write()
    async with database.connect() as c:
        found = await audit.page(c, "default", audit.Filter(), after=None, limit=9)
    assert [each.at for each in found] == [now, now - timedelta(minutes=3), now - timedelta(minutes=5)]


async def test_what_was_left_out_is_told_before_a_gateway_stops(database: Database) -> None:
    log = AuditLog(database, AuditSettings(unknown_per_minute=1))
    for _ in range(3):
        log.record(entry(actor=None, outcome="refused", address=None))
    await log.close()
    async with database.connect() as c:
        told, _ = await audit.page(c, "default", audit.Filter(), after=None, limit=9)
    assert told.detail is not None
    assert told.detail["left_out"] == 2


async def test_a_flood_without_a_key_is_bounded_and_its_extent_is_in_the_metrics(gateway: Gateway) -> None:
    async with client_of(gateway, "tl_wrong") as stranger:
        await asyncio.gather(*(stranger.get("/api/agent") for _ in range(60)))
    found = await logged(gateway, outcome="refused")
    assert 0 < len(found) <= PER_ADDRESS
    assert all(each["actor"] is None for each in found)
    text = (await gateway.client.get("/metrics")).text
    written = value(text, "trunkline_audit_entries_total", outcome="written")
    assert written == len(found)
    assert value(text, "trunkline_audit_entries_total", outcome="left_out") > 0


async def test_two_that_write_at_once_write_each_entry_once(database: Database) -> None:
    log = AuditLog(database, AuditSettings())
    for _ in range(50):
        log.record(entry())
    assert await asyncio.gather(*(log.write() for _ in range(3))) == [True] * 3
    assert log.dropped == 0
    async with database.connect() as c:
        assert len(await audit.page(c, "default", audit.Filter(), after=None, limit=99)) == 50


async def test_a_log_that_is_off_writes_nothing(database: Database) -> None:
    log = AuditLog(database, AuditSettings(enabled=False))
    log.record(entry())
    assert await log.write()
    async with database.connect() as c:
        assert await audit.page(c, "default", audit.Filter(), after=None, limit=9) == []


async def test_old_entries_are_forgotten(database: Database) -> None:
    log = AuditLog(database, AuditSettings(retention_days=30))
    log.record(entry(at=datetime.now(UTC) - timedelta(days=31)))
    log.record(entry())
    await log.write()
    await log._forget()
    async with database.connect() as c:
        assert len(await audit.page(c, "default", audit.Filter(), after=None, limit=9)) == 1
