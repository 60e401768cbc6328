"""What a person sees of a run."""

import io
from typing import Any

import pytest
from rich.console import Console

from tests.trunkline.server import event
from trunkline.models import Event
from trunkline.show import HEAD_LINES, TAIL_LINES, Progress, summary


def shown(*events: dict[str, Any], terminal: bool = False) -> str:
    out = io.StringIO()
    progress = Progress(Console(file=out, width=80, highlight=False, force_terminal=terminal, color_system=None))
    for body in events:
        progress.show(Event.parse(body))
    progress.close()
    return out.getvalue()


def test_text_streams_and_the_end_says_what_it_took() -> None:
    text = shown(
        event("1-0", "run.started"),
        event("1-1", "agent.request", step=1, model="demo"),
        event("1-2", "agent.delta", step=1, text="Hello "),
        event("1-3", "agent.delta", step=1, text="world."),
        event("1-4", "agent.response", step=1, content="Hello world."),
        event("3-0", "run.completed", usage={"input_tokens": 1200, "output_tokens": 34}, cost=0.0123),
    )
    assert text == (
        "Hello world.\n\n✓ succeeded  in 2.0 s · model demo · 1 model call · 1,200 tokens in, 34 out · $0.0123\n"
    )


def test_an_answer_that_was_not_streamed_is_shown_whole() -> None:
    request = event("1-1", "agent.request", step=1, model="m")
    assert "All at once\n" in shown(request, event("1-2", "agent.response", step=1, content="All at once"))


def test_a_tool_call_is_one_line_with_its_output_below() -> None:
    text = shown(
        event("1-0", "tool.request", step=2, tool_call_id="c", name="bash", arguments='{"command": "ls\\necho"}'),
        event("1-1", "tool.output", step=2, tool_call_id="c", stream="stdout", text="one\ntw"),
        event("1-2", "tool.output", step=2, tool_call_id="c", stream="stdout", text="o\n"),
        event("1-3", "tool.response", step=2, tool_call_id="c", ok=True, content="one\ntwo", duration_ms=2500),
    )
    assert text == "● bash  ls …\n  │ one\n  │ two\n  2.5 s\n"


def test_a_failed_call_shows_what_the_model_was_told() -> None:
    text = shown(
        event("1-0", "tool.request", step=2, tool_call_id="c", name="read_file", arguments='{"path": "x"}'),
        event(
            "1-1", "tool.response", step=2, tool_call_id="c", ok=False, content="No such file.", error_code="missing"
        ),
    )
    assert text == "● read_file  x\n  │ No such file.\n  ✗ missing\n"


def test_of_a_long_output_both_ends_are_shown() -> None:
    lines = "".join(f"line {i}\n" for i in range(100))
    text = shown(
        event("1-0", "tool.request", step=2, tool_call_id="c", name="bash", arguments="{}"),
        event("1-1", "tool.output", step=2, tool_call_id="c", stream="stdout", text=lines),
        event("1-2", "tool.response", step=2, tool_call_id="c", ok=True, content=""),
    )
    assert "line 0\n" in text
    assert "line 99\n" in text
    assert f"… {100 - HEAD_LINES - TAIL_LINES} more lines" in text
    assert text.count("line") == HEAD_LINES + TAIL_LINES + 1


def test_text_of_an_answer_that_broke_off_is_named_as_void() -> None:
    text = shown(
        event("1-0", "agent.request", step=1, model="m"),
        event("1-1", "agent.delta", step=1, text="The answer is 41, because"),
        event("1-2", "agent.request", step=1, model="m", **{"try": 2}, cause="the server broke off"),
        event("1-3", "agent.delta", step=1, text="The answer is 42."),
    )
    assert "✗ void: what stands above from “The answer is 41, because” on" in text
    assert "↻ try 2: the server broke off" in text
    assert text.endswith("The answer is 42.\n")


def test_text_of_a_lost_attempt_is_named_as_void() -> None:
    text = shown(
        event("1-0", "agent.request", step=1, model="m"),
        event("1-1", "agent.delta", step=1, text="Half an ans"),
        event("1-2", "run.interrupted", reason="worker_lost"),
        event("1-3", "run.resumed", attempt=2),
        event("1-4", "agent.request", step=1, attempt=2, model="m"),
        event("1-5", "agent.delta", step=1, attempt=2, text="A whole answer."),
    )
    assert text.count("✗ void") == 1
    assert text.index("Half an ans") < text.index("✗ void") < text.index("A whole answer.")


def test_a_committed_answer_is_not_void_when_the_run_is_resumed() -> None:
    text = shown(
        event("1-0", "agent.request", step=1, model="m"),
        event("1-1", "agent.delta", step=1, text="Done."),
        event("1-2", "agent.response", step=1, content="Done."),
        event("1-3", "run.resumed", attempt=2),
    )
    assert "void" not in text


def test_a_failed_run_says_why() -> None:
    text = shown(event("1-0", "run.failed", error={"code": "model_auth", "detail": "The key is wrong. Set it."}))
    assert "✗ failed: The key is wrong. Set it." in text


def test_a_link_is_whole_however_narrow_the_terminal() -> None:
    url = f"http://8000-t.localhost:8000/?ticket={'x' * 80}"
    text = shown(event("1-0", "url", step=2, url=url, label="the shop", port=8000), terminal=True)
    assert text == f"◆ url  the shop  {url}\n"


def test_an_event_whose_content_the_calls_output_tells_is_not_shown_twice() -> None:
    assert shown(event("1-0", "todo", step=2, todos=[]), event("1-1", "plan", step=2, approval="approved")) == ""
    assert shown(event("1-0", "weather", step=2, sky="blue")) == '◆ weather  {"sky": "blue"}\n'


def test_a_plan_that_waits_for_approval_is_shown_with_its_steps() -> None:
    steps = [{"id": "1", "title": "Look\x1b[2J"}, {"id": "2", "title": "Leap"}]
    text = shown(event("1-0", "plan", step=2, approval="pending", title="A leap", steps=steps))
    assert text == "◆ plan  A leap\n  │ 1. Look[2J\n  │ 2. Leap\n"


def test_nothing_that_a_terminal_would_act_upon_gets_through() -> None:
    text = shown(
        event("1-0", "agent.delta", step=1, text="a\x1b[31mb\x9b2Jc\rd\x07"),
        event("1-1", "log", level="info", message="[bold]not markup[/] \x1b]0;title\x07"),
    )
    assert not set(text) & set("\x1b\x9b\r\x07")
    assert "[bold]not markup[/]" in text


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ('{"command": "python fizzbuzz.py 15", "timeout_ms": 5}', "python fizzbuzz.py 15"),
        ('{"files": [{"file_path": "a.py", "content": "x"}, {"file_path": "b.py"}]}', "a.py, b.py"),
        ('{"edits": [{"file_path": "a.py"}, {"file_path": "b.py"}, {"file_path": "a.py"}]}', "a.py, b.py"),
        ('{"path": "a.py", "offset": 3}', "a.py  3"),
        ("{broken", "{broken"),
        ('["x"]', '["x"]'),
    ],
)
def test_a_calls_arguments_fit_on_a_line(arguments: str, line: str) -> None:
    assert summary(arguments) == line


def test_long_arguments_are_cut() -> None:
    assert summary({"command": "x" * 500}) == "x" * 120 + " …"


def test_a_waiting_run_says_what_for_and_how_to_answer() -> None:
    waits = [
        {"step_id": "t.r.1", "kind": "human", "name": None, "until": "2026-11-21T12:00:00.000Z"},
        {"step_id": "t.r.2", "kind": "outcome", "name": None, "until": None},
        {"step_id": "t.r.3", "kind": "event", "name": "paid", "until": None},
        {"step_id": "t.r.4", "kind": "timer", "name": None, "until": "2026-11-21T13:00:00.000Z"},
        {"step_id": "t.r.5", "kind": "child", "name": "t.c", "until": None},
    ]
    text = shown(event("1-0", "run.waiting", waits=waits))
    assert text.splitlines() == [
        "⏸ waits for a human until 2026-11-21T12:00:00.000Z: trunkline approve t.r.1 (or reject, answer)",
        "⏸ what became of an effect is not known: trunkline resolve t.r.2 repeat (or done, failed)",
        "⏸ waits for the event 'paid'",
        "⏸ waits until 2026-11-21T13:00:00.000Z",
        "⏸ waits for run t.c",
    ]


def test_an_interrupted_run_says_why() -> None:
    text = shown(*(event(f"1-{n}", "run.interrupted", reason=why) for n, why in enumerate(("drain", "worker_lost"))))
    assert text.splitlines() == [
        "⚠ the worker was told to stop; another one takes over",
        "⚠ the worker was lost; another one takes over",
    ]
