"""What may happen to a machine at E2B between two calls, or under one; and who finds it again."""

import asyncio
import gc
from collections.abc import AsyncIterator, Mapping, Sequence

import httpx
import pytest

from shared.config import ApiSettings
from shared.ids import new_thread_id
from shared.install import Install
from shared.types import JSON
from tests.support.cloud import Fault, rate_limit
from tests.support.e2b_double import E2BDouble
from tests.support.waiting import until
from tests.workflow.sandbox.conformance.box import Box, new_box
from tests.workflow.sandbox.conformance.conftest import e2b_settings
from workflow.sandbox import line, orphans
from workflow.sandbox.base import Command, ExecStatus, FileMissing, FileWrite, SandboxLost, SandboxUnavailable
from workflow.sandbox.choose import choose_provider
from workflow.sandbox.remote_provider import RemoteProvider

START = "POST /process.Process/Start"


@pytest.fixture
async def double() -> AsyncIterator[E2BDouble]:
    async with E2BDouble() as double:
        yield double


def provider_of(double: E2BDouble, **fields: object) -> RemoteProvider:
    provider = choose_provider(e2b_settings(double, **fields), Install("tests", "tests"))
    assert isinstance(provider, RemoteProvider)
    return provider


@pytest.fixture
async def provider(double: E2BDouble) -> AsyncIterator[RemoteProvider]:
    provider = provider_of(double)
    yield provider
    await provider.close()


@pytest.fixture
async def box(provider: RemoteProvider) -> Box:
    return await new_box(provider)


async def test_a_machine_is_found_again_by_its_ref_and_says_nothing(box: Box, double: E2BDouble) -> None:
    await box.run("echo x > kept")
    again = await box.provider.acquire(box.thread_id, box.sandbox.ref)
    assert (again.ref, again.notice) == (box.sandbox.ref, None)
    assert (await again.read("kept")).content == b"x\n"
    assert len(double.alive()) == 1


async def test_a_machine_whose_ref_was_never_kept_is_found_by_its_label(box: Box, double: E2BDouble) -> None:
    again = await box.provider.acquire(box.thread_id, None)
    assert again.ref == box.sandbox.ref
    assert len(double.alive()) == 1


async def test_two_workers_that_make_a_threads_machine_at_once_get_one(double: E2BDouble) -> None:
    thread_id, workers = new_thread_id(), [provider_of(double) for _ in range(3)]
    sandboxes = await asyncio.gather(*(worker.acquire(thread_id, None) for worker in workers))
    assert len({sandbox.ref["id"] for sandbox in sandboxes}) == len(double.alive()) == 1
    for worker in workers:
        await worker.close()


async def test_a_paused_machine_goes_on_with_its_processes(box: Box, double: E2BDouble) -> None:
    task = await box.run("sleep 1; echo on", background=True)
    await double.expire(box.sandbox.ref["id"])
    output = await box.sandbox.task_output(str(task.task_id), block_seconds=20)
    assert output.text == "on\n"
    assert box.sandbox.notice is None


async def test_a_machine_that_lost_its_processes_says_so(box: Box, double: E2BDouble) -> None:
    task = await box.run("sleep 60", background=True)
    await box.run("echo x > kept")
    machine = double.boxes[box.sandbox.ref["id"]]
    await double.pause(machine, memory=False)
    again = await box.provider.acquire(box.thread_id, box.sandbox.ref)
    assert "background tasks have ended" in str(again.notice)
    assert again.ref["life"] != box.sandbox.ref["life"]
    assert (await again.read("kept")).content == b"x\n"
    with pytest.raises(SandboxLost):
        await again.task_output(str(task.task_id))
    assert [each.status for each in await again.tasks()] == [ExecStatus.KILLED]


async def test_a_write_that_was_cut_off_between_its_files_is_finished_by_whoever_comes_next(box: Box) -> None:
    await box.run(
        "echo old > a; echo new > .staged.tmp; "
        """echo '[["/workspace/.staged.tmp", "/workspace/a"]]' > .unfinished-write"""
    )
    again = await box.provider.acquire(box.thread_id, box.sandbox.ref)
    assert (await again.read("a")).content == b"new\n"


async def test_a_machine_that_is_gone_is_replaced_when_there_is_something_to_do(box: Box, double: E2BDouble) -> None:
    await box.run("echo x > file")
    key, ref = box.key(), box.sandbox.ref
    await double.kill(double.boxes[ref["id"]])
    again = await box.provider.acquire(box.thread_id, ref)
    assert "files and background tasks are lost" in str(again.notice)
    await again.cancel(box.run_id, 1)
    assert double.alive() == {}
    with pytest.raises(FileMissing):
        await again.read("file")
    assert again.ref["id"] != ref["id"]
    assert list(double.alive()) == [again.ref["id"]]
    with pytest.raises(SandboxLost):
        await again.attach(key, 2, box.show)
    with pytest.raises(SandboxLost):
        await again.recall(key, 2)


async def test_a_machine_that_goes_under_a_command_loses_it(box: Box, double: E2BDouble) -> None:
    running = asyncio.create_task(box.run("echo on; sleep 60"))
    await until(lambda: box.shown == "on\n")
    await double.kill(double.boxes[box.sandbox.ref["id"]])
    with pytest.raises(SandboxLost):
        await running
    assert await box.text("echo new") == "new\n"
    assert "a new one was made" in str(box.sandbox.notice)


async def test_a_lost_answer_repeats_no_command_and_no_write(box: Box, double: E2BDouble) -> None:
    double.faults += [Fault(START, status=None, done=True)]
    assert await box.text("echo once >> count; cat count") == "once\n"
    double.faults += [Fault(START, status=None, done=True)]
    key = box.key()
    written = await box.sandbox.write([FileWrite("file", b"x")], key, 1, b"note")
    assert written.note == b"note"
    assert await box.text("cat count file") == "once\nx"


@pytest.mark.parametrize("fault", [Fault("", 500), Fault("", None), Fault("", 502), rate_limit()])
async def test_a_failure_that_passes_is_not_noticed(box: Box, double: E2BDouble, fault: Fault) -> None:
    double.faults.append(fault)
    assert await box.text("echo fine") == "fine\n"


async def test_a_service_that_stays_away_makes_the_sandbox_unavailable(
    box: Box, double: E2BDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "PATIENCE_SECONDS", 0.5)
    double.faults.append(Fault("", 500, times=1000))
    with pytest.raises(SandboxUnavailable, match="does not answer"):
        await box.run("echo never")
    with pytest.raises(SandboxUnavailable):
        await box.provider.acquire(new_thread_id(), None)


async def test_a_wrong_key_names_the_setting(double: E2BDouble) -> None:
    provider = provider_of(double, api_key="e2b_" + "0" * 40)
    with pytest.raises(SandboxUnavailable, match=r"e2b\.api_key or E2B_API_KEY"):
        await provider.acquire(new_thread_id(), None)
    await provider.close()


@pytest.mark.parametrize("public", [False, True])
async def test_what_a_machine_serves_is_open_to_everybody_only_where_public_links_are(
    double: E2BDouble, public: bool
) -> None:
    settings = e2b_settings(double).model_copy(update={"api": ApiSettings(public_links=public)})
    provider = choose_provider(settings, Install("tests", "tests"))
    box = await new_box(provider)
    endpoint = await box.sandbox.expose(8000, 60)
    assert (endpoint is not None and endpoint.public) is public
    await box.run("python3 -m http.server 8000 --bind 127.0.0.1", background=True)
    machine = double.boxes[box.sandbox.ref["id"]]
    async with httpx.AsyncClient(base_url=double.url, headers={"Host": f"8000-{machine.id}.localhost"}) as client:
        assert public or (await client.get("/")).status_code == 403
        token = {"e2b-traffic-access-token": machine.traffic_token}

        async def shown() -> bool:
            return (await client.get("/", headers={} if public else token)).status_code == 200

        await until(shown)
    await provider.close()


async def test_our_program_comes_back_where_an_agent_removed_it(box: Box) -> None:
    with pytest.raises(SandboxLost):
        await box.run("rm -rf ~/.trunkline")
    assert await box.text("echo again") == "again\n"


async def test_a_machine_lives_on_while_somebody_holds_it(double: E2BDouble) -> None:
    provider = provider_of(double)
    provider.cloud.extend_seconds = 0.05  # type: ignore[misc]
    box = await new_box(provider)
    extended = double.called(r"POST /sandboxes/\w+/timeout")
    await until(lambda: double.called(r"POST /sandboxes/\w+/timeout") > extended + 2)
    del box
    await until(lambda: gc.collect() >= 0 and not list(provider._held))
    await provider.close()


async def test_others_live_on_where_one_fails_in_a_way_that_nobody_thought_of(
    double: E2BDouble, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    provider = provider_of(double)
    provider.cloud.extend_seconds = 0.05  # type: ignore[misc]
    broken, _ = await new_box(provider), await new_box(provider)

    async def fail() -> None:
        raise KeyError("surprise")

    monkeypatch.setattr(broken.sandbox, "keep_alive", fail)
    await until(lambda: caplog.text.count("surprise") > 1)
    extended = double.called(r"POST /sandboxes/\w+/timeout")
    await until(lambda: double.called(r"POST /sandboxes/\w+/timeout") > extended + 2)
    await provider.close()


async def test_orphans_go_and_wanted_machines_stay(
    provider: RemoteProvider, double: E2BDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, orphan, renewed = [await new_box(provider) for _ in range(3)]
    twin = await provider.cloud.create(renewed.thread_id, "another")
    foreign = provider_of(double)
    foreign.cloud._install = Install("others", "tests")  # type: ignore[attr-defined]
    other = await new_box(foreign)

    async def threads(thread_ids: Sequence[str]) -> Mapping[str, JSON | None]:
        assert orphan.thread_id in thread_ids
        return {wanted.thread_id: None, renewed.thread_id: {"provider": "e2b", "id": twin.machine_id}}

    assert await orphans.sweep_machines(provider.cloud, "tests", threads) == []
    monkeypatch.setattr(orphans, "YOUNG_SECONDS", -1)
    removed = await orphans.sweep_machines(provider.cloud, "tests", threads)
    assert set(removed) == {orphan.sandbox.ref["id"], renewed.sandbox.ref["id"]}
    assert set(double.alive()) == {wanted.sandbox.ref["id"], twin.machine_id, other.sandbox.ref["id"]}
    await foreign.close()


async def test_a_command_that_began_is_not_begun_again_by_its_key(box: Box, provider: RemoteProvider) -> None:
    key = box.key()
    await box.sandbox.exec(Command(key, 1, "echo once >> count"), box.show)
    later = await provider.acquire(box.thread_id, box.sandbox.ref)
    await later.exec(Command(key, 2, "echo once >> count"), box.show)
    assert await box.text("cat count", epoch=2) == "once\n"
