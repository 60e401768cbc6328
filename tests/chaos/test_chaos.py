"""The promise of docs/reliability.md, on a real fleet under faults. A failure prints its seed and keeps its history."""

import asyncio
from pathlib import Path

import pytest

from tests.chaos.experiment import Plan, run
from tests.chaos.fleet import Fleet
from tests.chaos.history import History
from tests.chaos.load import Load
from tests.chaos.nemeses import Incident

FOCUSED = {
    "a worker killed between a step's intent and its effect, in its drain, and after a wait": [
        Incident(2, "N2", 0, detail="before_effect"),
        Incident(3, "N2", 1, detail="after_wait"),
        Incident(12, "N2", 0, detail="mid_drain"),
        Incident(14, "N2", 1, detail="after_signal"),
    ],
    "a worker stopped for longer than its lease, while the other hears no answers": [
        Incident(2, "N3", 0, lasts=12),
        Incident(6, "N5", 1, lasts=8, detail="half_open"),
    ],
    "a Valkey killed, and then without disk": [
        Incident(2, "N6", 0, lasts=2),
        Incident(8, "N11", 0, lasts=3, detail="exits"),
        Incident(14, "N11", 0, lasts=3, detail="misconf"),
    ],
    "messages lost and doubled, a clock an hour off, a gateway killed": [
        Incident(1, "N9", 0, lasts=15),
        Incident(2, "N10", 1, lasts=12),
        Incident(5, "N7", 0),
        Incident(8, "N8", 0, lasts=5, detail="cut"),
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("incidents", FOCUSED.values(), ids=[*FOCUSED])
async def test_the_promise_holds_under(incidents: list[Incident]) -> None:
    verdict = await run(Plan(seed=1, seconds=18, incidents=incidents, sandbox=False, quiet=True))
    assert verdict.runs > 20, "too few runs to mean anything"
    assert not verdict.violations, str(verdict)


@pytest.mark.slow
async def test_the_promise_holds_under_everything_at_random() -> None:
    verdict = await run(Plan(seed=14, seconds=120))
    print(verdict)
    assert verdict.runs > 100, "too few runs to mean anything"
    assert not verdict.violations, str(verdict)


@pytest.mark.slow
async def test_an_approval_waits_through_a_restart_of_everything(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    history = History(tmp_path / "history.jsonl", quiet=True)
    async with Fleet(tmp_path, history, seed=1, workers_wanted=1, gateways_wanted=1, sandbox=False) as fleet:
        load = Load(fleet, seed=1, with_clerk=False)
        job = load.start("order", approve=True)
        before = await _approvals(fleet)
        for process in (*fleet.workers, *fleet.gateways):
            process.kill()
        fleet.valkey.kill()
        await fleet.whole()
        assert await _approvals(fleet) == before
        [step_id] = before
        await load.post(f"/api/steps/{step_id}/human-complete", {"output": "yes"}, "approved")
        assert await load.finish(30) == []
        assert job.events[-1].data["data"]["output"][-1] == "yes"
    history.close()


async def _approvals(fleet: Fleet) -> list[str]:
    """The steps that wait for a human, once there is one."""
    async with asyncio.timeout(60):
        while True:
            answer = await fleet.http.get(f"{fleet.gateway_urls[0]}/api/approvals")
            if answer.is_success and (items := answer.json()["items"]):
                return [item["step_id"] for item in items]
            await asyncio.sleep(0.2)
