"""Workers killed inside tools: what was done is done once, or somebody is told that nobody knows."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from tests.support.stack import ROOT


async def kill(redis_url: str, folder: Path, times: int) -> dict[str, int]:
    """What happened to the world outside while so many attempts were killed."""
    command = ["-m", "tests.chaos.kills", redis_url, str(folder), str(times), "7"]
    killing = await asyncio.create_subprocess_exec(sys.executable, *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    output, _ = await killing.communicate()
    assert killing.returncode == 0
    return dict(json.loads(output))


def assert_exact(found: dict[str, int], times: int) -> None:
    assert found["kills"] >= times
    assert found["keyed effects"] == found["runs"] * 3
    assert found["announced"] > times / 10, "too few kills between a blind effect and its commit to mean anything"
    wrong = ("not succeeded", "keyed twice or never", "unannounced repeats", "repeats", "said to be done and not")
    assert {name: found[name] for name in wrong} == dict.fromkeys(wrong, 0)


async def test_a_few_workers_killed_inside_tools_repeat_no_effect(redis_url: str, tmp_path: Path) -> None:
    assert_exact(await kill(redis_url, tmp_path, 20), 20)


@pytest.mark.slow
async def test_a_thousand_workers_killed_inside_tools_repeat_no_effect(redis_url: str, tmp_path: Path) -> None:
    assert_exact(await kill(redis_url, tmp_path, 1000), 1000)
