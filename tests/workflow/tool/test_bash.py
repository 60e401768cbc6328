"""The shell tools, against a real sandbox."""

import asyncio
import re
from dataclasses import replace

import pytest

from tests.support.waiting import until
from tests.workflow.tool.support import Caller
from workflow.sandbox.base import FileMissing, Sandbox
from workflow.tool.base import CallLimits


async def text_of(box: Sandbox, path: str) -> str:
    return (await box.read(path)).content.decode()


async def test_output_and_exit_code_are_told(call: Caller) -> None:
    result = await call("bash", command="echo out; echo err >&2; exit 3", description="x" * 200)
    assert re.fullmatch(r"out\nerr\n\[exit code 3, \d+\.\d s\]", result.content)
    assert (result.ok, result.error_code) == (False, "command_failed")
    assert result.data["exit_code"] == 3
    assert result.data["description"] == "x" * 80
    assert "".join(text for _, text in call.shown) == "out\nerr\n"


async def test_success_without_output_says_so(call: Caller) -> None:
    result = await call("bash", command="true")
    assert result.content.startswith("(no output)\n[exit code 0, ")
    assert result.ok


async def test_the_working_folder_is_kept_between_calls(call: Caller) -> None:
    assert "now in /workspace/sub" in (await call("bash", command="mkdir sub && cd sub")).content
    assert (await call("bash", command="pwd")).content.startswith("/workspace/sub\n")
    elsewhere = await call("bash", command="pwd", workdir="/tmp")
    assert elsewhere.content.startswith("/tmp\n[exit code 0, ")
    assert "now in" not in elsewhere.content
    assert (await call("bash", command="pwd", workdir="sub/..")).content.startswith("/workspace\n")
    assert (await call("bash", command="pwd")).content.startswith("/workspace/sub\n")


async def test_a_folder_that_is_not_there_is_an_answer(call: Caller) -> None:
    result = await call("bash", command="pwd", workdir="nowhere")
    assert not result.ok
    assert "/workspace/nowhere" in result.content


async def test_a_working_folder_that_was_removed_is_left(call: Caller) -> None:
    await call("bash", command="mkdir gone && cd gone && rmdir ../gone")
    assert (await call("bash", command="pwd")).content.startswith("/workspace\n")


async def test_nothing_asks_pages_or_draws(call: Caller) -> None:
    result = await call("bash", command='read -r line; echo "got:$line $PAGER $TERM"')
    assert result.content.startswith("got: cat dumb\n")


async def test_a_wrong_command_is_not_run(call: Caller) -> None:
    result = await call("bash", command='{"command": "ls"}')
    assert (result.ok, result.error_code) == (False, "invalid_command")
    assert await call.recover("call_1", "bash", command='{"command": "ls"}') is None


async def test_long_output_is_cut_and_kept_in_a_file(call: Caller) -> None:
    result = await call("bash", command="for i in $(seq 20000); do echo line $i; done")
    path = result.data["full_output_path"]
    assert path == "/workspace/.agent/outputs/call_1.txt"
    assert len(result.content) <= call.limits.output_chars
    assert result.content.startswith("line 1\nline 2\n")
    assert "line 20000\n[exit code 0" in result.content
    note = re.search(r"\[… ([\d,]+) bytes omitted; full output: (\S+); cut at line (\d+) …\]", result.content)
    assert note is not None
    assert note[2] == path
    whole = await text_of(call.box, path)
    assert whole == "".join(f"line {n}\n" for n in range(1, 20_001))
    shown_lines = result.content.split("\n")
    assert shown_lines.index(note[0]) in (int(note[3]) - 1, int(note[3]))


async def test_kept_output_stays_out_of_the_users_repository(call: Caller) -> None:
    await call("bash", command="seq 20000")
    if (await call("bash", command="git init -q . && git status --short")).data["exit_code"] == 127:
        pytest.skip("there is no git here")
    assert (await call("bash", command="git status --short")).content.startswith("(no output)")


async def test_a_call_id_is_never_a_path(call: Caller) -> None:
    result = await call.run("../../../tmp/x y", "bash", command="seq 20000")
    assert result.data["full_output_path"] == "/workspace/.agent/outputs/.._.._.._tmp_x_y.txt"
    assert (await text_of(call.box, result.data["full_output_path"])).endswith("20000\n")


async def test_long_lines_and_colours_do_not_reach_the_model(call: Caller) -> None:
    result = await call("bash", command=r"printf '\033[31mred\033[0m\n'; head -c 5000 /dev/zero | tr '\0' x")
    assert result.content.startswith("red\nxxxx")
    assert "… [3,000 more characters in this line]" in result.content


async def test_what_is_shown_live_is_bounded(call: Caller) -> None:
    call.limits = CallLimits(streamed_chars=1_000)
    await call("bash", command="seq 2000")
    shown = "".join(text for _, text in call.shown)
    assert shown.startswith("1\n2\n")
    assert shown.endswith("[… more output is not shown live …]\n")
    assert len(shown) < 1_100


async def test_a_command_that_takes_long_goes_on_in_the_background(call: Caller) -> None:
    result = await call(
        "bash", command="echo begun; until test -e go; do sleep 0.02; done; echo done", timeout_ms=1_000
    )
    assert result.ok
    assert result.content.startswith("begun\n[still running after 1.")
    assert 'bash_output with task_id "bg_1"' in result.content
    assert result.data["task_id"] == "bg_1"
    await call("bash", command="touch go")
    ended = await call("bash_output", task_id="bg_1", block=True)
    assert ended.content.startswith("begun\ndone\n[bg_1 completed, exit code 0, ")
    assert ended.data["status"] == "completed"


async def test_the_foreground_limit_counts_whatever_the_model_asks_for(call: Caller) -> None:
    call.limits = CallLimits(foreground_seconds=0.2)
    result = await call("bash", command="sleep 60", timeout_ms=600_000)
    assert result.data["status"] == "running"
    assert (await call("bash_kill", task_id="bg_1")).ok


async def test_a_background_task_is_read_on_from_where_one_was(call: Caller) -> None:
    started = await call(
        "bash", command="echo one; until test -e go; do sleep 0.02; done; echo two; exit 4", run_in_background=True
    )
    assert "started in the background as bg_1" in started.content
    first = ""
    while "one" not in first:
        first = (await call("bash_output", task_id="bg_1")).content
    assert "[bg_1 running, " in first
    assert (await call("bash_output", task_id="bg_1")).content.startswith("(no new output)\n")
    await call("bash", command="touch go")
    last = await call("bash_output", task_id="bg_1", block=True)
    assert last.content.startswith("two\n[bg_1 failed, exit code 4, ")
    assert (await call("bash_output", task_id="bg_1", offset=0)).content.startswith("one\ntwo\n")


async def test_much_background_output_is_cut_and_kept_in_a_file(call: Caller) -> None:
    await call("bash", command="seq 20000", run_in_background=True)
    result = await call("bash_output", task_id="bg_1", block=True)
    assert result.content.startswith("1\n2\n")
    assert "20000\n[bg_1 completed" in result.content
    assert "full output so far: /workspace/.agent/outputs/bg_1.txt" in result.content
    assert len((await text_of(call.box, "/workspace/.agent/outputs/bg_1.txt")).split()) == 20_000


async def test_the_end_of_a_task_is_told_once_with_the_next_result(call: Caller) -> None:
    await call("bash", command="sleep 0.05; exit 2", run_in_background=True)
    contents: list[str] = []
    while not contents or "background task" not in contents[-1]:
        contents.append((await call("ls")).content)
    assert re.search(r"\[background task bg_1 failed, exit code 2, .* s: sleep 0\.05; exit 2\]$", contents[-1])
    assert "background task" not in (await call("ls")).content


async def test_a_task_is_ended_with_all_its_processes(call: Caller) -> None:
    await call("bash", command="(trap '' TERM; sleep 61) & sleep 62; wait", run_in_background=True)
    ended = await call("bash_kill", task_id="bg_1")
    assert ended.content.startswith("Ended: bg_1 killed")
    assert "background task" not in ended.content
    left = await call("bash", command="cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c 'sleep 6[12]'")
    assert left.content.startswith("0\n")
    again = await call("bash_kill", task_id="bg_1")
    assert again.ok
    assert "bg_1 killed" in again.content


async def test_a_task_that_is_not_there_is_answered_with_those_that_are(call: Caller) -> None:
    for tool in ("bash_output", "bash_kill"):
        result = await call(tool, task_id="bg_9")
        assert (result.ok, result.error_code) == (False, "unknown_task")
        assert "There are none" in result.content
    await call("bash", command="sleep 60", run_in_background=True)
    assert "- bg_1 running" in (await call("bash_output", task_id="bg_9")).content


async def test_files_that_a_command_changed_under_the_model_are_named_once(call: Caller) -> None:
    await call("write_files", files=[{"file_path": name, "content": "a = 1\n"} for name in ("a.py", "b.py", "c.py")])
    changed = await call("bash", command="sed -i s/1/2/ a.py; rm b.py")
    assert changed.content.endswith(
        "[files you had read that have changed since: /workspace/a.py, /workspace/b.py (gone)]"
    )
    assert "changed since" not in (await call("bash", command="true")).content
    assert "/workspace/a.py" in (await call("bash", command="echo >> a.py")).content


async def test_a_command_survives_the_worker_that_began_it(call: Caller) -> None:
    command = "echo begun; until test -e go; do sleep 0.02; done; echo done >> log; cat log"
    running = asyncio.create_task(call.run("c", "bash", command=command))
    await until(lambda: call.shown)
    running.cancel()
    await asyncio.wait({running})
    call.shown.clear()
    recovering = asyncio.create_task(call.recover("c", "bash", command=command))
    await until(lambda: call.shown)
    await call("bash", command="touch go")
    result = await recovering
    assert result is not None
    assert result.content.startswith("begun\ndone\n[exit code 0, ")
    assert await text_of(call.box, "log") == "done\n"
    again = await call.recover("c", "bash", command=command)
    assert again is not None
    assert again.content == result.content


async def test_a_command_that_never_began_is_to_be_run(call: Caller) -> None:
    await call("bash", command="true")
    assert await call.recover("c", "bash", command="touch made") is None
    try:
        await call.box.stat("made")
    except FileMissing:
        return
    raise AssertionError("asking what became of a command has run it")


async def test_two_runs_of_a_thread_share_their_sandbox(call: Caller) -> None:
    await call("bash", command="echo 1 > shared; cd /tmp")
    other = replace(call, run_id="t.s", calls=0)
    assert (await other("bash", command="cat /workspace/shared")).content.startswith("1\n")
