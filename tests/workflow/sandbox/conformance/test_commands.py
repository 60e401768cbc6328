"""Commands, whoever provides the sandbox: keys, epochs, time, the background, cancelling."""

import asyncio

import pytest

from tests.support.waiting import until
from tests.workflow.sandbox.conformance.box import Box
from workflow.sandbox.base import Command, ExecStatus, SandboxFenced, SandboxRefused


async def _ignore(_: str, __: str) -> None:
    pass


async def test_output_comes_in_order_and_as_it_is_written(box: Box) -> None:
    shown = ""

    async def note(stream: str, text: str) -> None:
        nonlocal shown
        assert stream == "output"
        shown += text

    command = "echo a; echo b >&2; echo c; until [ -e go ]; do sleep 0.1; done; sleep 0.5; echo d"
    running = asyncio.create_task(box.sandbox.exec(Command(box.key(), 1, command), note))
    await until(lambda: shown == "a\nb\nc\n")
    await box.run("touch go")
    result = await running
    assert result.output.head == shown == "a\nb\nc\nd\n"
    assert (result.status, result.exit_code, result.task_id) == (ExecStatus.EXITED, 0, None)
    assert 400 < result.duration_ms < 60_000


async def test_a_repeated_key_attaches_to_its_command(box: Box) -> None:
    key = box.key()
    first = asyncio.create_task(box.run("echo once | tee -a count; sleep 0.5; wc -l < count", key=key))
    await until(lambda: box.shown == "once\n")
    second = await box.run("echo something else", key=key)
    assert (await first) == second
    assert second.output.head == "once\n1\n"
    assert await box.run("echo something else", key=key) == second


async def test_a_command_goes_on_when_its_caller_is_gone(box: Box) -> None:
    key = box.key()
    caller = asyncio.create_task(box.run("echo before; sleep 0.6; echo after | tee -a log", key=key))
    await until(lambda: box.shown == "before\n")
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(asyncio.shield(caller), 5)
    box.shown = ""
    result = await box.sandbox.attach(key, 2, box.show)
    assert result
    assert box.shown == result.output.head == "before\nafter\n"
    assert (await box.sandbox.read("log")).content == b"after\n"


async def test_attaching_to_a_key_that_never_began_gives_none(box: Box) -> None:
    assert await box.sandbox.attach(box.key(), 1, box.show) is None


async def test_an_older_epoch_of_a_run_is_refused_everywhere(box: Box) -> None:
    key = box.key()
    await box.sandbox.exec(Command(key, 5, "true"), _ignore)
    with pytest.raises(SandboxFenced, match="attempt 5"):
        await box.sandbox.exec(Command(box.key(), 4, "true"), _ignore)
    with pytest.raises(SandboxFenced):
        await box.sandbox.attach(key, 4, _ignore)
    with pytest.raises(SandboxFenced):
        await box.sandbox.write([], box.key(), 4, b"")
    with pytest.raises(SandboxFenced):
        await box.sandbox.recall(key, 4)
    with pytest.raises(SandboxFenced):
        await box.sandbox.save_output(key, "output", box.key(), 4)
    assert not [entry.path for entry in (await box.sandbox.list(".")).entries]
    other_run = await box.sandbox.exec(Command("another/1", 1, "echo fine"), _ignore)
    assert other_run.output.head == "fine\n"


async def test_the_folder_is_remembered_and_the_environment_is_not(box: Box) -> None:
    await box.run("mkdir -p 'a b/c'; cd 'a b/c'; export X=1; alias l=ls")
    assert await box.text('pwd; echo "[$X]"') == "/workspace/a b/c\n[]\n"
    assert await box.text("pwd", cwd="/tmp") == "/tmp\n"
    assert await box.text("pwd", cwd="a b") == "/workspace/a b\n"
    assert (await box.run("cd /usr; exit 7")).cwd == "/usr"
    assert await box.text("cd /tmp & wait; pwd") == "/usr\n"


async def test_a_remembered_folder_that_is_gone_falls_back_to_the_workspace(box: Box) -> None:
    await box.run("mkdir gone; cd gone; rmdir ../gone")
    await box.run("mkdir gone; cd gone")
    await box.run("cd ..; rmdir gone", cwd="gone")
    assert await box.text("pwd") == "/workspace\n"


async def test_a_folder_that_was_asked_for_must_be_there(box: Box) -> None:
    with pytest.raises(SandboxRefused, match="/workspace/nowhere does not exist"):
        await box.run("pwd", cwd="nowhere")


async def test_a_command_has_the_environment_it_is_given_and_no_terminal(box: Box) -> None:
    text = await box.text("env; cat; tty", env={"MINE": "a=b"})
    for expected in ("TERM=dumb", "MINE=a=b", "HOME=/home/", "not a tty"):
        assert expected in text
    assert "BASH_ENV" not in text


@pytest.mark.parametrize(("command", "code"), [("exit 3", 3), ("nosuch", 127), ("kill -9 $$", 137), ("(", 2)])
async def test_exit_codes_are_the_shells(box: Box, command: str, code: int) -> None:
    assert (await box.run(command)).exit_code == code


async def test_after_its_time_a_command_goes_on_in_the_background(box: Box) -> None:
    result = await box.run("echo one; until [ -e go ]; do sleep 0.1; done; echo two", timeout_seconds=2)
    assert (result.status, result.exit_code, result.output.head) == (ExecStatus.RUNNING, None, "one\n")
    assert result.task_id == "bg_1"
    assert [task.status for task in await box.sandbox.tasks()] == [ExecStatus.RUNNING]
    await box.run("touch go")
    output = await box.sandbox.task_output("bg_1", len("one\n"), block_seconds=10)
    assert (output.text, output.task.status, output.task.exit_code) == ("two\n", ExecStatus.EXITED, 0)
    assert (await box.sandbox.task_output("bg_1", output.next_offset)).text == ""


async def test_a_background_command_answers_at_once_and_leaves_the_folder_alone(box: Box) -> None:
    result = await box.run("cd /tmp; until [ -e /workspace/go ]; do sleep 0.1; done; pwd", background=True)
    assert result.task_id == "bg_1"
    await box.run("touch go")
    assert (await box.sandbox.task_output("bg_1", block_seconds=10)).text == "/tmp\n"
    assert await box.text("pwd") == "/workspace\n"


async def test_a_task_is_killed_softly_and_then_hard(box: Box) -> None:
    soft = await box.run("trap 'echo bye; exit 0' TERM; touch a; sleep 60 & wait", background=True)
    hard = await box.run("trap '' TERM; touch b; while :; do sleep 1; done", background=True)
    await box.run("until [ -e a ] && [ -e b ]; do sleep 0.05; done")
    killed = await box.kill(soft)
    assert (killed.status, killed.killed_by) == (ExecStatus.KILLED, "request")
    assert (await box.sandbox.task_output(killed.task_id)).text == "bye\n"
    assert (await box.kill(hard)).exit_code == 137
    assert await box.kill(hard) == await box.kill(hard)


async def test_an_unknown_task_is_refused_with_those_that_are_known(box: Box) -> None:
    await box.run("true", background=True)
    with pytest.raises(SandboxRefused, match="known tasks: bg_1"):
        await box.sandbox.task_output("bg_9")


async def test_cancelling_a_run_ends_its_foreground_commands_only(box: Box) -> None:
    mine = asyncio.create_task(box.run("setsid sleep 51 & sleep 52"))
    background = await box.run("sleep 53", background=True)
    other = asyncio.create_task(box.sandbox.exec(Command("other/1", 1, "sleep 1; echo done"), _ignore))
    await box.run("until pgrep -f 'sleep 52' && pgrep -f 'sleep 51'; do sleep 0.05; done")
    await box.sandbox.cancel(box.run_id, 1)
    result = await mine
    assert (result.status, result.killed_by) == (ExecStatus.KILLED, "cancellation")
    assert await box.text("pgrep -fa '^sleep 5'") == (await box.text("pgrep -fa '^sleep 53'"))
    assert (await other).output.head == "done\n"
    assert (await box.kill(background)).killed_by == "request"


async def test_an_older_attempt_ends_nothing_of_a_newer_one(box: Box) -> None:
    running = asyncio.create_task(box.sandbox.exec(Command(box.key(), 2, "echo on; sleep 0.7; echo off"), box.show))
    task = await box.sandbox.exec(Command(box.key(), 2, "sleep 60", background=True), _ignore)
    await until(lambda: box.shown == "on\n")
    with pytest.raises(SandboxFenced):
        await box.sandbox.cancel(box.run_id, 1)
    with pytest.raises(SandboxFenced):
        await box.sandbox.kill_task(str(task.task_id), box.key(), 1)
    assert (await running).output.head == "on\noff\n"
    assert (await box.sandbox.kill_task(str(task.task_id), box.key(), 2)).killed_by == "request"


async def test_after_a_cancel_older_attempts_begin_nothing_more(box: Box) -> None:
    await box.sandbox.cancel(box.run_id, 3)
    with pytest.raises(SandboxFenced):
        await box.sandbox.exec(Command(box.key(), 2, "touch made"), _ignore)


async def test_a_child_that_keeps_the_output_open_does_not_hold_up_the_answer(box: Box) -> None:
    result = await box.run("sleep 30 & echo started")
    assert result.duration_ms < 5000
    assert (result.status, result.output.head) == (ExecStatus.EXITED, "started\n")
    chatty = await box.run("(for i in $(seq 40); do echo $i; sleep 0.1; done; echo end > finished) & echo started")
    assert chatty.duration_ms < 3000
    await box.run("until [ -e finished ]; do sleep 0.1; done")  # what writes on is neither blocked nor killed


async def test_bytes_that_are_no_text_come_as_replacement_characters(box: Box) -> None:
    result = await box.run(r"printf 'a\xffb\xc3'; sleep 0.1; printf '\xa4\xe2\x82'")
    assert result.output.head == box.shown == "a\ufffdbä\ufffd"


async def test_all_kept_output_can_be_saved_to_a_file(box: Box) -> None:
    key = box.key()
    result = await box.run("seq 100000", key=key, output_chars=1000)
    assert (result.output.cut_line, len(result.output.head), len(result.output.tail)) == (128, 400, 600)
    await box.sandbox.save_output(key, ".agent/outputs/1.txt", box.key(), 1)
    assert await box.text("wc -l < .agent/outputs/1.txt; tail -1 .agent/outputs/1.txt") == "100000\n100000\n"


async def test_many_commands_run_at_once_in_one_sandbox(box: Box) -> None:
    meet = "touch met-{0}; until [ $(ls met-* | wc -l) = 16 ]; do sleep 0.05; done; echo {0}"
    results = await asyncio.gather(*(box.run(meet.format(number)) for number in range(16)))
    assert [result.output.head for result in results] == [f"{number}\n" for number in range(16)]


async def test_a_command_too_long_or_with_a_nul_is_refused(box: Box) -> None:
    with pytest.raises(SandboxRefused, match="longer than"):
        await box.run("x" * 130_000)
    with pytest.raises(SandboxRefused, match="NUL"):
        await box.run("a\0b")
    with pytest.raises(SandboxRefused, match="not valid text"):
        await box.run("\ud800")
    assert (await box.run(": " + "x" * 119_000)).exit_code == 0
