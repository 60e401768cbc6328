"""What docs/streaming.md shows does what it says."""

import asyncio
import re
import runpy
from pathlib import Path

import pytest

from gateway.stream.ws import CloseCode
from tests.gateway.conftest import gateway
from tests.gateway.support import KEY, Gateway, finish, until

__all__ = ["gateway"]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "streaming.md"


async def test_the_example_executes_one_run_and_follows_it(
    gateway: Gateway,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    [example] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "follow.py").write_text(example)
    follow = runpy.run_path(str(tmp_path / "follow.py"))["follow"]
    thread_id = await gateway.thread()
    following = asyncio.create_task(follow(f"http://127.0.0.1:{gateway.port}", KEY, thread_id, "a task"))

    async def executed() -> bool:
        return bool(await gateway.store.run_ids(thread_id))

    await until(executed)
    [run_id] = await gateway.store.run_ids(thread_id)
    await finish(await gateway.attempt(run_id), 1)
    async with asyncio.timeout(10):
        await following
    assert capsys.readouterr().out.split() == ["run.queued", "run.started", "agent.delta", "run.completed"]


async def test_every_close_code_is_on_the_page() -> None:
    described = {int(code) for code in re.findall(r"^\| (\d{4}) \|", PAGE.read_text(), re.MULTILINE)}
    assert {code.value for code in CloseCode} <= described
