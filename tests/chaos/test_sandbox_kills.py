"""Workers and sandbox hosts killed around sandboxes: no command is repeated unseen, no sandbox and no file is lost."""

import asyncio
import contextlib
import json
import os
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from shared.keys import ThreadKeys
from tests.support.e2b_double import E2BDouble
from tests.support.stack import ROOT
from tests.support.waiting import until
from tests.workflow.sandbox.support import Host

MODE = "root" if os.geteuid() == 0 else "user"
WRONG = (
    "not succeeded",
    "unannounced repeats",
    "said to be done and not",
    "files lost or damaged",
    "sandboxes of no thread",
    "wanted sandboxes swept",
)


async def kill(redis_url: str, settings: dict[str, Any], times: int) -> dict[str, int]:
    """What was found in the sandboxes after so many attempts were killed; printed too."""
    command = ["-m", "tests.chaos.sandbox_kills", redis_url, json.dumps(settings), str(times), "7"]
    killing = await asyncio.create_subprocess_exec(sys.executable, *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    output, _ = await killing.communicate()
    assert killing.returncode == 0
    found = dict(json.loads(output))
    print(settings["sandbox"]["provider"], found)
    return found


def assert_exact(found: dict[str, int], times: int) -> None:
    assert found["attempts killed"] >= times
    assert found["calls found in flight"] > times / 10, "too few kills inside of calls to mean anything"
    assert_right(found)
    assert (found.get("repeats", 0), found.get("announced", 0)) == (0, 0), "what a sandbox knows, it tells"


def assert_right(found: dict[str, int]) -> None:
    assert {name: found.get(name, 0) for name in WRONG} == dict.fromkeys(WRONG, 0)


def local(host: Host) -> dict[str, Any]:
    return {"data": str(host.data), "sandbox": {"provider": "local", "host_url": host.settings.sandbox.host_url}}


def living(host: Host) -> Counter[str]:
    """The threads whose sandboxes have processes, as the kernel tells: how many sandboxes each."""
    threads = Counter[str]()
    for pid, line in host.processes().items():
        if "sandboxd.pyz" in line and "bwrap" not in line:
            with contextlib.suppress(OSError):  # it has ended meanwhile
                mounts = Path(f"/proc/{pid}/mountinfo").read_text()
                threads.update(re.findall(r"/workspaces/(\S+) /workspace ", mounts))
    return threads


async def assert_wanted(sandboxes: Counter[str], redis_url: str) -> None:
    """Each is its thread's only one, and the thread is there."""
    async with Redis.from_url(redis_url) as client:
        missing = [thread for thread in sandboxes if not await client.exists(ThreadKeys(thread).metadata)]
    assert (missing, {thread for thread, number in sandboxes.items() if number > 1}) == ([], set())


async def kill_around_local(redis_url: str, times: int) -> None:
    with Host(MODE, idle_seconds=10) as host:
        assert_exact(await kill(redis_url, local(host), times), times)
        assert living(host), "nothing was seen, so nothing is proved"
        await assert_wanted(living(host), redis_url)
        await until(lambda: not living(host), 30)


async def kill_around_e2b(redis_url: str, times: int) -> None:
    async with E2BDouble() as double:
        section = {"api_key": double.key, "api_url": double.api_url, "sandbox_url": double.api_url}
        found = await kill(redis_url, {"sandbox": {"provider": "e2b"}, "e2b": section}, times)
        assert_exact(found, times)
        assert found["machines swept with their threads"] == found["runs"]
        assert double.alive() == {}


async def kill_hosts_around_commands(redis_url: str, worker_kills: int, host_kills: int) -> None:
    with Host(MODE) as host:
        killing = asyncio.create_task(kill(redis_url, local(host), worker_kills))
        killed = 0
        while not killing.done():
            if killed < host_kills and any("sleep 0." in line for line in host.processes().values()):
                host.kill()
                killed += 1
                await asyncio.to_thread(host.start)
            await asyncio.wait([killing], timeout=host_pause(killed))
        found = await killing
        print(f"hosts killed under commands: {killed}")
        assert killed == host_kills
        assert found["announced"] > 0
        assert found["told of a restart"] > 0
        assert_right(found)
        await assert_wanted(living(host), redis_url)


def host_pause(killed: int) -> float:
    """Seconds until the next look for a command: each host lives longer or shorter than the last one."""
    return (0.05, 0.4, 1.1, 0.2)[killed % 4]


@pytest.mark.slow
async def test_a_few_workers_killed_around_local_sandboxes_repeat_nothing(redis_url: str) -> None:
    await kill_around_local(redis_url, 20)


@pytest.mark.slow
async def test_a_thousand_attempts_killed_around_local_sandboxes_repeat_nothing(redis_url: str) -> None:
    await kill_around_local(redis_url, 1000)


@pytest.mark.slow
async def test_a_few_workers_killed_around_machines_at_e2b_repeat_nothing(redis_url: str) -> None:
    await kill_around_e2b(redis_url, 20)


@pytest.mark.slow
async def test_a_thousand_attempts_killed_around_machines_at_e2b_repeat_nothing(redis_url: str) -> None:
    await kill_around_e2b(redis_url, 1000)


async def test_a_killed_host_loses_no_file_and_says_what_is_gone(redis_url: str) -> None:
    await kill_hosts_around_commands(redis_url, worker_kills=0, host_kills=2)


@pytest.mark.slow
async def test_hosts_and_workers_killed_beside_each_other_lose_no_file(redis_url: str) -> None:
    await kill_hosts_around_commands(redis_url, worker_kills=300, host_kills=5)
