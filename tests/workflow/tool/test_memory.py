"""A thread's memory is what its tool results add up to."""

from workflow.tool.base import ToolResult
from workflow.tool.memory import Memory, Seen, file_memory


def test_the_latest_result_about_a_file_counts() -> None:
    memory = Memory.of([file_memory("/a", "1", (1, 5)), file_memory("/b", "2"), file_memory("/a", "3")])
    assert memory.files == {"/b": Seen("2"), "/a": Seen("3")}
    assert list(memory.files) == ["/b", "/a"]


def test_a_read_shows_only_the_lines_that_it_showed() -> None:
    seen = Memory.of([file_memory("/a", "1", (3, 5))]).files["/a"]
    assert seen.shows(3, 5)
    assert seen.shows(4, 4)
    assert not seen.shows(2, 4)
    assert not Seen("1").shows(1, 1)


def test_a_change_that_was_told_is_forgotten_once_the_file_is_read() -> None:
    memory = Memory.of([file_memory("/a", "1"), {"changed": {"/a": "2"}}])
    assert memory.changed == {"/a": "2"}
    memory.learn(file_memory("/a", "2"))
    assert memory.changed == {}


def test_tasks_run_until_their_end_is_known() -> None:
    memory = Memory.of([{"tasks": {"bg_1": 0}}, {"tasks": {"bg_2": 0}}, {"tasks": {"bg_1": 70}, "ended": ["bg_1"]}])
    assert memory.tasks == {"bg_1": 70, "bg_2": 0}
    assert memory.running() == {"bg_2"}


def test_a_result_survives_being_written_down() -> None:
    result = ToolResult(
        True, "text → \n", {"path": "/a"}, None, [("file", {"path": "/a"})], file_memory("/a", "1", (1, 2))
    )
    assert ToolResult.decode(result.encode()) == result
    refusal = ToolResult.error("not_found", "There is no /a.")
    assert ToolResult.decode(refusal.encode()) == refusal
