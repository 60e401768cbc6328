"""Budgets over HTTP: whose a run is, and how to go on after a raise. The worker is in the test's own loop."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.config import BudgetSettings
from tests.gateway.support import KEY, Gateway, serving, settings_for
from tests.gateway.test_flows import get
from tests.workflow.support import Playbook, a_runtime, turn
from workflow.runner import Runner, Signals

BOOK = [turn(f"Turn {n}.", (f"c{n}", "look", "{}")) for n in range(1, 4)]
DONE = "Done."


async def work(gateway: Gateway, run_id: str, **settings: Any) -> dict[str, Any]:
    model = Playbook([*BOOK, turn(DONE)])
    runtime = a_runtime(model, client=gateway.redis, **settings)
    await Runner(gateway.app.state.services.outside, runtime).execute(run_id, "w1", Signals())
    return dict(await get(gateway, run_id))


async def retry(gateway: Gateway, run_id: str, key: str | None = None, **parameters: Any) -> httpx.Response:
    headers = {"Idempotency-Key": key} if key else {}
    return await gateway.client.post(f"/api/runs/{run_id}/retry", json={"parameters": parameters}, headers=headers)


async def steps_of(gateway: Gateway, run_id: str) -> list[tuple[str, str]]:
    items = (await gateway.client.get(f"/api/runs/{run_id}/steps")).json()["items"]
    return [(step["key"], step["status"]) for step in items]


@pytest.mark.parametrize(
    ("limits", "raised"), [({"max_turns": 2}, {"max_turns": 9}), ({"max_cost": 0.002}, {"max_cost": 1})]
)
async def test_a_run_whose_budget_was_used_up_goes_on_where_it_was_after_a_raise(
    gateway: Gateway, limits: dict[str, Any], raised: dict[str, Any]
) -> None:
    run_id = await gateway.execute(await gateway.thread(), parameters={**limits, "temperature": 0.5})
    run = await work(gateway, run_id)
    assert (run["status"], run["error"]["code"]) == ("failed", "budget_exhausted")
    kept = [step for step in await steps_of(gateway, run_id) if step[1] == "succeeded"]
    assert len(kept) == 4
    answer = await retry(gateway, run_id, **raised)
    assert answer.status_code == 201, answer.text
    new = await work(gateway, answer.json()["run_id"])
    assert (new["status"], new["output"], new["retried_from"]) == ("succeeded", DONE, run_id)
    assert (await steps_of(gateway, new["run_id"]))[:4] == kept
    record = await gateway.store.run(new["run_id"])
    assert record is not None
    assert record.parameters == {**limits, "temperature": 0.5, **raised}


async def test_a_retry_without_a_raise_ends_where_the_first_run_did(gateway: Gateway) -> None:
    run_id = await gateway.execute(await gateway.thread(), parameters={"max_turns": 2})
    await work(gateway, run_id)
    again = (await gateway.client.post(f"/api/runs/{run_id}/retry")).json()["run_id"]
    assert (await work(gateway, again))["error"]["code"] == "budget_exhausted"


async def test_the_same_retry_with_another_raise_is_another_request(gateway: Gateway) -> None:
    run_id = await gateway.execute(await gateway.thread(), parameters={"max_turns": 1})
    await work(gateway, run_id)
    first, same, other = [await retry(gateway, run_id, "k", max_turns=turns) for turns in (5, 5, 6)]
    assert [answer.status_code for answer in (first, same, other)] == [201, 201, 409]
    assert first.json()["run_id"] == same.json()["run_id"]
    assert (await retry(gateway, run_id, max_turns=0)).status_code == 400
    assert (await retry(gateway, run_id, max_turn=1)).status_code == 400


async def test_a_keys_runs_of_all_threads_share_its_budget_and_another_key_has_its_own(
    redis_url: str, tmp_path: Path
) -> None:
    other = "tl_another-key-for-tests"
    settings = settings_for(redis_url, tmp_path, auth={"keys": [other]})
    limits = {"budget": BudgetSettings(key_max_turns=5)}
    async with serving(settings) as gateway:
        runs = [await work(gateway, await gateway.execute(await gateway.thread()), **limits) for _ in range(2)]
        assert [run["status"] for run in runs] == ["succeeded", "failed"]
        assert "budget.key_max_turns" in runs[1]["error"]["detail"]
        assert KEY not in runs[1]["error"]["detail"]
        gateway.client.headers["Authorization"] = f"Bearer {other}"
        assert (await work(gateway, await gateway.execute(await gateway.thread()), **limits))["status"] == "succeeded"
        # What a key's request retries is the key's.
        answer = await retry(gateway, runs[1]["run_id"])
        assert (await work(gateway, answer.json()["run_id"], **limits))["error"]["code"] == "budget_exhausted"
