"""A turn from its chunks, with what small servers make of the format."""

from types import SimpleNamespace
from typing import Any

from workflow.llm.assemble import Turn
from workflow.llm.types import TextDelta, ThinkingDelta, ToolCall, Usage


def choice(content: str | None = None, finish_reason: str | None = None, calls: Any = None, **extra: Any) -> Any:
    delta = SimpleNamespace(content=content, tool_calls=calls, **extra)
    return SimpleNamespace(delta=delta, finish_reason=finish_reason)


def piece(index: int | None, call_id: str | None, name: str | None, arguments: str | None) -> Any:
    return SimpleNamespace(index=index, id=call_id, function=SimpleNamespace(name=name, arguments=arguments))


def test_text_and_thinking_are_kept_apart() -> None:
    turn = Turn()
    assert list(turn.add(choice(reasoning_content="Hm"))) == [ThinkingDelta("Hm")]
    assert list(turn.add(choice("Yes", "stop"))) == [TextDelta("Yes")]
    response = turn.response(Usage())
    assert (response.thinking, response.content, response.finish_reason) == ("Hm", "Yes", "stop")


def test_fragments_go_to_the_call_of_their_index() -> None:
    turn = Turn()
    for call in (
        piece(0, "a", "ls", '{"pa'),
        piece(1, "b", "bash", None),
        piece(0, None, None, 'th": 1}'),
        piece(1, None, None, "{}"),
    ):
        assert not list(turn.add(choice(calls=[call])))
    assert turn.response(Usage()).tool_calls == [ToolCall("a", "ls", '{"path": 1}'), ToolCall("b", "bash", "{}")]


def test_calls_that_share_an_index_are_told_apart_by_their_ids() -> None:
    turn = Turn()
    list(turn.add(choice(calls=[piece(0, "a", "ls", "{}"), piece(0, "b", "ls", "{"), piece(None, "b", None, "}")])))
    assert turn.response(Usage()).tool_calls == [ToolCall("a", "ls", "{}"), ToolCall("b", "ls", "{}")]


def test_an_id_that_is_missing_stays_empty() -> None:
    turn = Turn()
    list(turn.add(choice(calls=[piece(0, None, "ls", "{}")])))
    assert turn.response(Usage()).tool_calls == [ToolCall("", "ls", "{}")]
