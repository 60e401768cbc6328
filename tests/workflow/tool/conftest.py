"""A real sandbox host for the tools' tests, and a caller with a fresh sandbox for each."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator

import pytest

from shared.ids import new_thread_id
from tests.workflow.sandbox.support import Host
from tests.workflow.tool.support import Caller
from workflow.sandbox.local import LocalProvider


@pytest.fixture(scope="package")
def host() -> Iterator[Host]:
    with Host("root" if os.geteuid() == 0 else "user") as running:
        yield running


@pytest.fixture
async def call(host: Host) -> AsyncIterator[Caller]:
    provider = LocalProvider(host.settings)
    try:
        box = await provider.acquire(new_thread_id(), None)
        yield Caller(box)
        await asyncio.gather(*(box.kill_task(task.task_id, "clean-up/1", 1) for task in await box.tasks()))
    finally:
        await provider.close()
