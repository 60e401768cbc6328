"""A request's id goes with the runs that it asks for."""

import logging

import pytest

from shared.log import bound_value
from tests.gateway.support import Gateway


async def asked(gateway: Gateway, path: str, request_id: str, body: object = None) -> dict[str, str]:
    answer = await gateway.client.post(path, json=body or {}, headers={"X-Request-Id": request_id})
    assert answer.status_code in (200, 201), answer.text
    return {**answer.json(), "header": answer.headers["X-Request-Id"]}


async def test_a_run_keeps_the_id_of_its_request_and_a_retry_has_its_own(gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    first = await asked(gateway, f"/api/agent/{thread_id}/execute", "the-first-request", {"task": "x"})
    await gateway.client.post(f"/api/runs/{first['run_id']}/cancel")
    again = await asked(gateway, f"/api/runs/{first['run_id']}/retry", "the-second-request")
    run = (await gateway.client.get(f"/api/runs/{first['run_id']}")).json()
    assert (run["request_id"], first["header"]) == ("the-first-request", "the-first-request")
    assert again["request_id"] == "the-second-request"


async def test_an_id_that_could_harm_a_log_is_replaced(gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    for strange in ("short", "with space in it", "x" * 65, "new\tline-in-it"):
        made = await asked(gateway, f"/api/agent/{thread_id}/execute", strange, {"task": "x"})
        run = (await gateway.client.get(f"/api/runs/{made['run_id']}")).json()
        assert run["request_id"] == made["header"] != strange


async def test_an_id_of_one_request_is_never_anothers(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    seen: dict[str, str | None] = {}

    class Watch(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen[record.getMessage().split()[1]] = bound_value("request_id")

    watch, log = Watch(), logging.getLogger("trunkline.gateway.access")
    caplog.set_level(logging.INFO, log.name)
    log.addHandler(watch)
    try:
        for number in range(10):
            await gateway.client.get(f"/nothing/{number}", headers={"X-Request-Id": f"request-no-{number}"})
    finally:
        log.removeHandler(watch)
    assert seen == {f"/nothing/{number}": f"request-no-{number}" for number in range(10)}
