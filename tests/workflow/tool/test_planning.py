"""The plan, the todos and the suggestions: what the model is told, what the user sees, what is kept."""

from typing import Any

import pytest

from tests.workflow.tool.support import REGISTRY, Caller
from workflow.tool.base import Answer, Question
from workflow.tool.job_plan import JobPlanArgs, JobPlanTool
from workflow.tool.memory import Memory
from workflow.tool.planning import standing
from workflow.tool.registry import Call

NO_SANDBOX: Any = None


@pytest.fixture
def call() -> Caller:
    return Caller(NO_SANDBOX)


def todo(content: str, status: str = "pending", **fields: Any) -> dict[str, Any]:
    return {"content": content, "status": status, **fields}


def plan(*titles: str, **fields: Any) -> dict[str, Any]:
    return {"title": "Build it", "steps": [{"title": title} for title in titles], **fields}


class TestTodos:
    async def test_the_whole_list_comes_back_and_is_shown(self, call: Caller) -> None:
        result = await call("todo_write", todos=[todo("Read", "completed"), todo("Write", "in_progress"), todo("Test")])
        text = "[x] 1. Read\n[>] 2. Write\n[ ] 3. Test"
        assert result.content == f"3 todos (1 pending, 1 in progress, 1 completed):\n{text}"
        assert [(kind, [item["id"] for item in data["todos"]]) for kind, data in result.events] == [
            ("todo", ["1", "2", "3"])
        ]
        assert (await call("todo_read")).content == text

    async def test_of_two_in_progress_the_one_begun_last_stays(self, call: Caller) -> None:
        await call("todo_write", todos=[todo("Read", "in_progress"), todo("Write")])
        result = await call("todo_write", todos=[todo("Read", "in_progress"), todo("Write", "in_progress")])
        assert result.ok
        assert result.content.endswith("[ ] 1. Read\n[>] 2. Write\n"
                                       "Only one can be in progress, so these went back to pending: 1.")  # fmt: skip
        assert result.data["demoted"] == ["1"]
        assert [item["status"] for item in call.memory.todos] == ["pending", "in_progress"]

    async def test_todos_keep_their_ids_when_the_list_changes(self, call: Caller) -> None:
        await call("todo_write", todos=[todo("Read"), todo("Write"), todo("Test")])
        await call("todo_write", todos=[todo("New"), todo("Test"), todo("Named", id="x"), todo("Read", id=7)])
        assert [(item["id"], item["content"]) for item in call.memory.todos] == [
            ("1", "New"), ("3", "Test"), ("x", "Named"), ("7", "Read"),
        ]  # fmt: skip

    async def test_ids_given_twice_are_told_apart(self, call: Caller) -> None:
        await call("todo_write", todos=[todo("a", id="1"), todo("b", id="1"), todo("c")])
        assert [item["id"] for item in call.memory.todos] == ["1", "2", "3"]

    async def test_an_empty_list_is_one(self, call: Caller) -> None:
        assert (await call("todo_read")).content == "There are no todos. todo_write makes a list."
        await call("todo_write", todos=[todo("a")])
        assert (await call("todo_write", todos=[])).content == "The list is empty now."
        assert call.memory.todos == []


class TestJobPlan:
    async def test_a_plan_is_shown_with_its_version(self, call: Caller) -> None:
        first = await call("job_plan", **plan("Look", "Do"), questions=["Which port?"])
        assert (
            first.content
            == "Job plan, version 1: Build it\n[ ] 1. Look\n[ ] 2. Do\nThe user sees it. Go on with the work."
        )
        second = await call("job_plan", title="Build it", steps=[{"title": "Look", "status": "completed"}])
        assert second.data["version"] == 2
        ((kind, event),) = first.events
        assert (kind, event["version"], event["approval"], event["questions"]) == ("plan", 1, "none", ["Which port?"])
        assert standing(call.memory) == "Job plan, version 2: Build it\n[x] 1. Look"

    async def test_a_human_is_asked_only_where_that_is_wanted(self, call: Caller) -> None:
        assert question(plan("Do")) is None
        asked = question(plan("Do", needs_approval=True))
        assert asked is not None
        assert asked.request["plan"]["steps"][0]["title"] == "Do"
        assert [(kind, data["approval"]) for kind, data in asked.events] == [("plan", "pending")]
        assert question(plan("Do"), always_asks=True) == asked
        assert question(plan("Do"), asked=True) == asked  # whatever the setting is by now

    @pytest.mark.parametrize("answer", [True, "Yes", "approved", {"approved": True}])
    async def test_after_approval_only_another_plan_is_asked_about(self, call: Caller, answer: Any) -> None:
        result = await answered(call, answer, plan("Look", "Do"))
        assert result.ok
        assert "approved by the user" in result.content
        steps = [{"title": "Look", "status": "completed"}, {"title": "Do", "status": "in_progress"}]
        assert question({"title": "Build it", "steps": steps}, call.memory, always_asks=True) is None
        assert question(plan("Look", "Do more"), call.memory, always_asks=True) is not None
        progress = await call("job_plan", title="Build it", steps=steps)
        assert (progress.data["approval"], progress.data["version"]) == ("approved", 2)

    @pytest.mark.parametrize(
        ("answer", "said"),
        [
            (None, ""),
            (False, ""),
            (1, ""),
            ({"approved": "yes"}, ""),
            ({"approved": False, "comment": "Use Go."}, "Use Go."),
            ("Not on a Friday", "Not on a Friday"),
        ],
    )
    async def test_what_is_no_plain_yes_is_none(self, call: Caller, answer: Any, said: str) -> None:
        result = await answered(call, answer, plan("Do"))
        assert (result.ok, result.error_code) == (False, "not_approved")
        assert said in result.content
        assert call.memory.plan is not None
        assert (call.memory.plan["approval"], call.memory.plan["comment"]) == ("rejected", said)
        assert question(plan("Do"), call.memory, always_asks=True) is not None


def question(
    arguments: dict[str, Any], memory: Memory | None = None, *, asked: bool = False, always_asks: bool = False
) -> Question | None:
    tool = JobPlanTool(always_asks=always_asks)
    return tool.question(JobPlanArgs(**arguments), memory or Memory(), asked=asked)


async def answered(call: Caller, answer: Any, arguments: dict[str, Any]) -> Any:
    call.answer = Answer(answer)
    result = await call("job_plan", **arguments)
    call.answer = None
    return result


async def test_suggestions_are_shown(call: Caller) -> None:
    suggestion = {"title": "run the tests again", "prompt": "Run the tests with coverage.", "kind": "test"}
    result = await call("suggest_next_steps", suggestions=[suggestion])
    assert result.content == "The user sees 1 suggestion. Now end with your answer."
    assert result.events == [("suggestions", {"suggestions": [suggestion]})]


def test_no_other_tool_asks_a_human_first() -> None:
    for name in REGISTRY.names:
        parsed = REGISTRY.parse(name, "{}")
        if isinstance(parsed, Call):
            assert parsed.tool.question(parsed.args, Memory(), asked=True) is None
