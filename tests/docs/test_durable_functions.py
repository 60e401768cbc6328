"""What docs/durable-functions.md shows does what it says."""

import re
import sys
from pathlib import Path

import pytest
from redis.asyncio import Redis

from shared.redis import connect
from shared.types import RunStatus
from tests.workflow.fleet import Fleet
from workflow.engine.durable import Functions

PAGE = Path(__file__).resolve().parents[2] / "docs" / "durable-functions.md"


async def test_the_example_runs_as_it_stands(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [example] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "flows_of_the_page.py").write_text(example)
    monkeypatch.syspath_prepend(str(tmp_path))
    client: Redis = connect(redis_url, timeout_seconds=5, max_connections=10)
    fleet = Fleet(client)
    try:
        fleet.functions = [Functions.of_modules(["flows_of_the_page"]).get("fulfil_order", 1)]
        run_id = await fleet.submit("fulfil_order", {"order": 7})
        await fleet.until(run_id, RunStatus.WAITING)
        await fleet.publish("packed", {"by": "Ada"}, key="7")
        await fleet.work()
        [*_, sleep] = await fleet.out.store.journal(run_id)
        assert sleep.name == "sleep"
        await client.zadd(next(iter(await client.keys("timers:*"))), {f"wake|{run_id}|sleep": 1})
        run = await fleet.until(run_id, RunStatus.SUCCEEDED)
    finally:
        sys.modules.pop("flows_of_the_page", None)
        await client.aclose()
    assert run.output == {"receipt": "receipt for 7", "packed": {"by": "Ada"}, "summary": "An agent's answer."}
