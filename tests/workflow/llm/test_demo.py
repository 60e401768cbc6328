"""The demo model, with real shell and files behind its tools."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from shared.types import JSON
from workflow.llm.demo import HOW_TO_SET_A_REAL_ONE, DemoModel, next_turn
from workflow.llm.types import ModelRequest, ModelResponse, TextDelta

ALL = ("ls", "read_file", "write_files", "bash")
FIZZBUZZ = "Write fizzbuzz.py, run it for 15, and tell me the output"


class Workspace:
    """The tools that the demo uses, in a folder."""

    def __init__(self, folder: Path, tools: tuple[str, ...]) -> None:
        self.folder = folder
        self.schemas: list[JSON] = [{"type": "function", "function": {"name": name}} for name in tools]
        self.calls: list[str] = []

    def call(self, name: str, arguments: dict[str, Any]) -> str:
        self.calls.append(name)
        return str(getattr(self, f"_{name}")(**arguments))

    def _ls(self) -> str:
        return "\n".join(sorted(file.name for file in self.folder.iterdir())) or "(empty)"

    def _read_file(self, file_path: str) -> str:
        return (self.folder / file_path).read_text()

    def _write_files(self, files: list[dict[str, str]]) -> str:
        for file in files:
            (self.folder / file["file_path"]).write_text(file["content"])
        return f"Wrote {len(files)} files"

    def _bash(self, command: str, description: str) -> str:
        done = subprocess.run(["bash", "-c", command], cwd=self.folder, capture_output=True, text=True, check=False)
        return f"{done.stdout}{done.stderr}\n[exit code {done.returncode}, 0.1 s]"


def converse(workspace: Workspace, task: str, history: list[JSON] | None = None) -> tuple[str, list[JSON]]:
    """Run a task to its end; returns the answer and the whole conversation."""
    messages = [*(history or []), {"role": "user", "content": task}]
    for _ in range(8):
        turn = next_turn(ModelRequest(messages, workspace.schemas))
        messages.append(turn.as_message())
        if not turn.tool_calls:
            return turn.content, messages
        for call in turn.tool_calls:
            content = workspace.call(call.name, json.loads(call.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": content})
    raise AssertionError(f"no end after 8 turns: {workspace.calls}")


def test_fizzbuzz_is_written_run_and_reported(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, ALL)
    answer, messages = converse(workspace, FIZZBUZZ)
    assert workspace.calls == ["ls", "write_files", "bash"]
    assert (tmp_path / "fizzbuzz.py").is_file()
    assert "`python3 fizzbuzz.py 15`" in answer
    assert "```\n1\n2\nFizz\n4\nBuzz\nFizz\n7\n8\nFizz\nBuzz\n11\nFizz\n13\n14\nFizzBuzz\n```" in answer
    assert "exit code" not in answer
    assert HOW_TO_SET_A_REAL_ONE in messages[1]["content"]
    assert sum(HOW_TO_SET_A_REAL_ONE in str(message.get("content")) for message in messages) == 1, "once is enough"


@pytest.mark.parametrize(
    ("task", "file", "output"),
    [
        ("Put the first 6 Fibonacci numbers on the screen", "fibonacci.py", "0\n1\n1\n2\n3\n5"),
        ("primes up to 12, in p.py please", "p.py", "2\n3\n5\n7\n11"),
        ("Tell me a joke about about trains", "word_count.py", "1 lines, 7 words, 34 characters"),
        ("Grüße an 'alle' $(whoami) `id`", "word_count.py", "longest word: whoami"),
        ("Zähle in zaehlen.py", "zaehlen.py", "4 words"),
    ],
)
def test_any_task_gets_a_small_real_job(tmp_path: Path, task: str, file: str, output: str) -> None:
    answer, _ = converse(Workspace(tmp_path, ALL), task)
    assert (tmp_path / file).is_file()
    assert output in answer


def test_a_file_that_the_task_names_is_made(tmp_path: Path) -> None:
    answer, _ = converse(Workspace(tmp_path, ALL), "Write a summary of nothing into report.md")
    assert (tmp_path / "report.md").read_text() in answer


def test_in_the_same_thread_it_reads_a_file_before_it_replaces_it(tmp_path: Path) -> None:
    _, history = converse(Workspace(tmp_path, ALL), FIZZBUZZ)
    again = Workspace(tmp_path, ALL)
    answer, messages = converse(again, FIZZBUZZ, history)
    assert again.calls == ["ls", "read_file", "write_files", "bash"]
    assert "FizzBuzz" in answer
    ids = [call["id"] for message in messages for call in message.get("tool_calls") or ()]
    assert len(ids) == len(set(ids))


def test_each_turn_follows_from_the_conversation_alone(tmp_path: Path) -> None:
    _, messages = converse(Workspace(tmp_path, ALL), FIZZBUZZ)
    schemas = Workspace(tmp_path, ALL).schemas
    for place, message in enumerate(messages):
        if message["role"] == "assistant":
            assert next_turn(ModelRequest(messages[:place], schemas)).as_message() == message


@pytest.mark.parametrize(
    ("tools", "used"),
    [(("bash",), ["bash"]), (("bash", "ls"), ["ls", "bash"]), (("write_files", "bash"), ["write_files", "bash"])],
)
def test_it_works_with_the_tools_it_is_given(tmp_path: Path, tools: tuple[str, ...], used: list[str]) -> None:
    workspace = Workspace(tmp_path, tools)
    answer, _ = converse(workspace, FIZZBUZZ)
    assert workspace.calls == used
    assert "FizzBuzz" in answer


@pytest.mark.parametrize(("tools", "said"), [(("ls",), "`ls`"), (("write_files",), "`write_files`"), ((), "no tool")])
def test_where_it_cannot_run_anything_it_says_so(tmp_path: Path, tools: tuple[str, ...], said: str) -> None:
    answer, _ = converse(Workspace(tmp_path, tools), FIZZBUZZ)
    assert said in answer
    assert "no tool" in answer
    assert "FizzBuzz" not in answer


def test_it_says_what_it_is_where_it_can_do_nothing(tmp_path: Path) -> None:
    answer, _ = converse(Workspace(tmp_path, ()), FIZZBUZZ)
    assert "no tool" in answer
    assert HOW_TO_SET_A_REAL_ONE in answer


def test_a_command_that_fails_is_reported_as_it_is(tmp_path: Path) -> None:
    class NoPython(Workspace):
        def _bash(self, command: str, description: str) -> str:
            return "bash: python3: command not found\n[exit code 127, 0.0 s]"

    answer, _ = converse(NoPython(tmp_path, ALL), FIZZBUZZ)
    assert "did not go well" in answer
    assert "python3: command not found\n[exit code 127, 0.0 s]" in answer
    assert "Its output" not in answer


def test_a_file_that_cannot_be_written_with_its_tool_is_written_with_the_shell(tmp_path: Path) -> None:
    class Refusing(Workspace):
        def _write_files(self, files: list[dict[str, str]]) -> str:
            return "fizzbuzz.py exists, and you have not read it. Nothing was written."

    answer, _ = converse(Refusing(tmp_path, ALL), FIZZBUZZ)
    assert "FizzBuzz\n```" in answer
    assert (tmp_path / "fizzbuzz.py").is_file()


def test_a_note_after_the_exit_code_is_not_taken_for_a_failure(tmp_path: Path) -> None:
    class Noting(Workspace):
        def _bash(self, command: str, description: str) -> str:
            return f"{super()._bash(command, description)}\nFiles you had read that this command changed: report.md"

    answer, _ = converse(Noting(tmp_path, ALL), FIZZBUZZ)
    assert "FizzBuzz\n```" in answer
    assert "Files you had read" not in answer


async def test_its_text_comes_word_by_word_at_a_readable_pace() -> None:
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    items = [item async for item in DemoModel(pause).stream(ModelRequest([{"role": "user", "content": "Hello"}]))]
    assert isinstance(items[-1], ModelResponse)
    assert "".join(item.text for item in items if isinstance(item, TextDelta)) == items[-1].content
    assert len(pauses) == len(items) - 1 > 20
    assert items[-1].usage.cost == 0
