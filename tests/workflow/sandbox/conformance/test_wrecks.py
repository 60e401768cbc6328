"""A machine at Daytona that failed while it was made: its thread gets another one, the sweeper removes the wreck."""

from collections.abc import AsyncIterator, Mapping, Sequence

import pytest

from shared.ids import new_thread_id
from shared.install import Install
from shared.types import JSON
from tests.support.daytona_double import DaytonaDouble
from tests.support.daytona_double.box import Box
from tests.workflow.sandbox.conformance.conftest import daytona_settings
from workflow.sandbox import orphans
from workflow.sandbox.base import SandboxUnavailable
from workflow.sandbox.choose import choose_provider
from workflow.sandbox.remote_provider import RemoteProvider


@pytest.fixture
async def double(request: pytest.FixtureRequest) -> AsyncIterator[DaytonaDouble]:
    async with DaytonaDouble(lag=getattr(request, "param", 0)) as double:
        yield double


@pytest.fixture
async def provider(double: DaytonaDouble) -> AsyncIterator[RemoteProvider]:
    provider = choose_provider(daytona_settings(double), Install("tests", "tests"))
    assert isinstance(provider, RemoteProvider)
    yield provider
    await provider.close()


@pytest.fixture
async def thread_id(double: DaytonaDouble, provider: RemoteProvider, monkeypatch: pytest.MonkeyPatch) -> str:
    """A thread with a wreck."""

    async def fails(_: DaytonaDouble, box: Box, __: bytes | None) -> None:
        box.become("error")

    thread_id = new_thread_id()
    with monkeypatch.context() as patch:
        patch.setattr(DaytonaDouble, "_create", fails)
        with pytest.raises(SandboxUnavailable):
            await provider.acquire(thread_id, None)
    assert [box.state for box in double.boxes.values()] == ["error"]
    return thread_id


@pytest.mark.parametrize("double", [0, 0.2], indirect=True)
async def test_the_thread_gets_another_machine(double: DaytonaDouble, provider: RemoteProvider, thread_id: str) -> None:
    sandbox = await provider.acquire(thread_id, None)
    assert list(double.alive()) == [sandbox.ref["id"]]


async def test_a_wreck_of_another_name_does_not_stand_in_the_way(
    double: DaytonaDouble, provider: RemoteProvider, thread_id: str
) -> None:
    [wreck] = double.alive()
    sandbox = await provider.acquire(thread_id, {"provider": "daytona", "id": wreck, "life": "x"})
    await sandbox.list("/workspace")
    assert sandbox.ref["id"] != wreck
    assert sandbox.ref["id"] in double.alive()


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.usefixtures("thread_id")
async def test_the_sweeper_removes_the_wreck(
    double: DaytonaDouble, provider: RemoteProvider, monkeypatch: pytest.MonkeyPatch, exists: bool
) -> None:
    monkeypatch.setattr(orphans, "YOUNG_SECONDS", -1)

    async def threads(thread_ids: Sequence[str]) -> Mapping[str, JSON | None]:
        return dict.fromkeys(thread_ids) if exists else {}

    await orphans.sweep_machines(provider.cloud, "tests", threads)
    assert double.alive() == {}


async def test_the_sweeper_keeps_the_machine_that_took_its_place(
    double: DaytonaDouble, provider: RemoteProvider, monkeypatch: pytest.MonkeyPatch, thread_id: str
) -> None:
    monkeypatch.setattr(orphans, "YOUNG_SECONDS", -1)
    [wreck] = double.alive()
    made = await provider.cloud.create(thread_id, wreck)

    async def threads(_: Sequence[str]) -> Mapping[str, JSON | None]:
        return {thread_id: None}

    assert await orphans.sweep_machines(provider.cloud, "tests", threads) == [wreck]
    assert list(double.alive()) == [made.machine_id]
