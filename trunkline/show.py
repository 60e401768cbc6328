"""A run as a person sees it: text as it streams, tool calls with their outputs, and how it ended.

What is printed stays printed, so it reads the same in a terminal, a pipe and a CI log. Text that a later event voids
(the model's answer broke off, the worker was lost) is named as void in the line below it.
"""

import json
from collections import deque
from datetime import datetime, timedelta
from typing import Any

from rich.console import Console
from rich.text import Text

from trunkline.models import Event
from trunkline.page import Page

HEAD_LINES = 12  # of a tool's output, from its start
TAIL_LINES = 4  # and from its end
LINE_CHARS = 400
QUOTE_CHARS = 40
TOLD = {"file", "search", "suggestions", "template", "todo"}  # by the output of the call that they are of
SAYING, DOING, END = "saying", "doing", "end"  # sections
SLOW_MS = 1000  # from here on a call's duration is worth telling
INTERRUPTED = {
    "worker_lost": "the worker was lost; another one takes over",
    "drain": "the worker was told to stop; another one takes over",
    "message": "a message came in",
}


class Progress:
    """Give it a run's events in their order. `close` it, so that no spinner stays behind."""

    def __init__(self, console: Console) -> None:
        self._page = Page(console)
        self._spoken = ""  # what the current, unfinished model turn has said so far
        self._step: str | None = None  # that turn's step
        self._model = ""
        self._turns = 0
        self._started: datetime | None = None
        self._outputs: dict[str, ToolOutput] = {}

    def show(self, event: Event) -> None:
        shower = getattr(self, "_on_" + event.type.replace(".", "_"), None)
        if shower is not None:
            shower(event)
        elif "." not in event.type and event.type not in TOLD:
            self._page.line(Text(f"◆ {event.type}  ", "magenta") + Text(_short(_compact(event.data)), "dim"))

    def head(self, text: str) -> None:
        """What the events that follow are of."""
        self._page.line(Text(clean(text), "dim"), whole=True)

    def note(self, text: str) -> None:
        """Something about the connection, not about the run."""
        self._page.line(Text(f"⋯ {clean(text)}", "yellow"))

    def close(self) -> None:
        self._page.close()

    def _on_run_queued(self, event: Event) -> None:
        self._page.wait("waiting for a worker")

    def _on_run_started(self, event: Event) -> None:
        self._started = event.time
        self._page.wait("starting")

    def _on_run_interrupted(self, event: Event) -> None:
        reason = str(event.data.get("reason"))
        self._page.line(Text(f"⚠ {INTERRUPTED.get(reason, 'the run goes on in a new attempt')}", "yellow"))
        self._page.wait("waiting for a worker")

    def _on_run_resumed(self, event: Event) -> None:
        self._void("the run goes on from its last finished step")
        for output in self._outputs.values():
            output.restart()
        self._page.line(Text(f"↻ resumed, attempt {event.attempt}", "yellow"))

    def _on_run_waiting(self, event: Event) -> None:
        for wait in event.data.get("waits") or [{}]:
            self._page.line(Text(f"⏸ {clean(waits_for(wait))}", "yellow"))
        self._page.wait("waiting")

    def _on_agent_request(self, event: Event) -> None:
        if event.data.get("purpose"):  # not a turn: the runtime asks for itself
            return
        if event.step_id == self._step:
            cause = clean(str(event.data.get("cause") or "the answer broke off"))
            self._void("the model answers again")
            self._page.line(Text(f"↻ try {event.data.get('try', 2)}: {cause}", "yellow"))
        else:
            self._turns += 1
        self._step = event.step_id
        self._spoken = ""
        self._model = clean(str(event.data.get("model", "")))
        self._page.wait("thinking")

    def _on_agent_thinking(self, event: Event) -> None:
        self._say(event.data.get("text", ""), "dim italic")

    def _on_agent_delta(self, event: Event) -> None:
        self._say(event.data.get("text", ""), "")

    def _on_agent_response(self, event: Event) -> None:
        if not self._spoken:
            self._say(event.data.get("content") or "", "")
        self._spoken, self._step = "", None

    def _on_tool_request(self, event: Event) -> None:
        name = clean(str(event.data.get("name", "tool")))
        self._outputs[str(event.data.get("tool_call_id"))] = ToolOutput(name)
        arguments = summary(event.data.get("arguments"))
        self._page.begin(DOING)
        self._page.line(Text(f"● {name}", "bold cyan") + Text(f"  {arguments}" if arguments else ""))
        self._page.wait(f"{name} is running")

    def _on_tool_output(self, event: Event) -> None:
        output = self._outputs.get(str(event.data.get("tool_call_id")))
        if output is not None:
            self._output_lines(output.take(clean(str(event.data.get("text", "")))))

    def _on_tool_response(self, event: Event) -> None:
        output = self._outputs.pop(str(event.data.get("tool_call_id")), None) or ToolOutput("tool")
        ok = bool(event.data.get("ok", True))
        if not output.any or not ok:
            self._output_lines(output.take("\n" + clean(str(event.data.get("content") or "")).strip() + "\n"))
        self._output_lines(output.rest())
        if not ok:
            self._page.line(Text(f"  ✗ {clean(str(event.data.get('error_code') or 'failed'))}", "red"))
        elif (duration := event.data.get("duration_ms") or 0) >= SLOW_MS:
            self._page.line(Text(f"  {duration / 1000:.1f} s", "dim"))
        self._page.wait("thinking")

    def _on_url(self, event: Event) -> None:
        words = [clean(str(event.data[name])) for name in ("label", "url") if event.data.get(name)]
        self._page.line(Text("◆ url  ", "magenta") + Text("  ".join(words)), whole=True)

    def _on_plan(self, event: Event) -> None:
        """Nobody has answered the call yet that waits for approval."""
        if event.data.get("approval") == "pending":
            self._page.line(Text("◆ plan  ", "magenta") + Text(clean(str(event.data.get("title")))))
            steps = event.data.get("steps") or []
            self._output_lines([clean(f"{step.get('id')}. {step.get('title')}") for step in steps])

    def _on_log(self, event: Event) -> None:
        level = str(event.data.get("level", "info")).lower()
        style = {"warning": "yellow", "error": "red"}.get(level, "dim")
        self._page.line(Text(f"! {clean(str(event.data.get('message', '')))}", style))

    def _on_run_completed(self, event: Event) -> None:
        self._end(event, Text("✓ succeeded", "bold green"))

    def _on_run_failed(self, event: Event) -> None:
        error = event.data.get("error") or {}
        self._end(event, Text(f"✗ failed: {clean(str(error.get('detail') or error.get('code') or ''))}", "bold red"))

    def _on_run_canceled(self, event: Event) -> None:
        self._void("the run was canceled")
        self._end(event, Text("■ canceled", "bold yellow"))

    def _end(self, event: Event, verdict: Text) -> None:
        facts = [f"in {_duration(event.time - self._started)}"] if self._started and event.time else []
        facts += [f"model {self._model}"] if self._model else []
        facts += [f"{self._turns} model {'call' if self._turns == 1 else 'calls'}"] if self._turns else []
        facts += cost_facts(event.data)
        self._page.begin(END)
        self._page.line(verdict + Text("  " + " · ".join(facts), "dim"))

    def _void(self, why: str) -> None:
        if self._spoken:
            quote = self._spoken.strip().splitlines()[0] if self._spoken.strip() else ""
            short = quote[:QUOTE_CHARS] + ("…" if len(quote) > QUOTE_CHARS else "")
            self._page.line(Text(f"✗ void: what stands above from “{short}” on; {why}", "bold yellow"))
        self._spoken = ""

    def _say(self, text: str, style: str) -> None:
        text = clean(text)
        if text:
            self._page.begin(SAYING)
            self._spoken += text[: max(0, 4 * QUOTE_CHARS - len(self._spoken))]
            self._page.stream(text, style)

    def _output_lines(self, lines: list[str]) -> None:
        for line in lines:
            self._page.line(Text(f"  │ {line[:LINE_CHARS]}", "dim"))


class ToolOutput:
    """One call's output, line by line: its first lines at once, its last ones when it has ended."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.any = False
        self.restart()

    def restart(self) -> None:
        """A re-attached command tells its output from the start."""
        self._partial = ""
        self._shown = 0
        self._hidden = 0
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)

    def take(self, text: str) -> list[str]:
        """The lines to show now."""
        self.any = self.any or bool(text.strip())
        *lines, self._partial = (self._partial + text).split("\n")
        lines = [line.rstrip("\r") for line in lines if line.strip()]
        now = lines[: HEAD_LINES - self._shown]
        self._shown += len(now)
        for line in lines[len(now) :]:
            self._hidden += 1
            self._tail.append(line)
        return now

    def rest(self) -> list[str]:
        """The lines to show at the end."""
        now = self.take("\n")
        gap = self._hidden - len(self._tail)
        return [*now, *([f"… {gap} more lines"] if gap else []), *self._tail]


def waits_for(wait: dict[str, Any]) -> str:
    """One of the waits in the data of `run.waiting`, and how to answer it."""
    step, name = wait.get("step_id"), wait.get("name")
    until = f" until {wait['until']}" if wait.get("until") else ""
    match wait.get("kind"):
        case "human":
            return f"waits for a human{until}: trunkline approve {step} (or reject, answer)"
        case "outcome":
            return f"what became of an effect is not known: trunkline resolve {step} repeat (or done, failed)"
        case "event":
            return f"waits for the event {name!r}{until}"
        case "child":
            return f"waits for run {name}"
        case _:
            return f"waits{until}"


def clean(text: str) -> str:
    """Without what a terminal would act upon: the text comes from a model or from a command's output."""
    return "".join(char for char in text if char in "\n\t" or char.isprintable())


def summary(arguments: Any) -> str:
    """A call's arguments in one line; None: they were too long for their event."""
    if arguments is None:
        return "…"
    try:
        arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError:
        return _short(clean(str(arguments)))
    if not isinstance(arguments, dict):
        return _short(_compact(arguments))
    if "command" in arguments:
        return _short(clean(str(arguments["command"])))
    for files in (arguments.get("files"), arguments.get("edits")):
        if isinstance(files, list):
            return _short(clean(", ".join(dict.fromkeys(map(_path, files)))))
    rest = [value if isinstance(value, str) else _compact(value) for value in arguments.values()]
    return _short(clean("  ".join(rest)))


def _path(file: Any) -> str:
    return str(file.get("file_path") or file.get("path") or "?") if isinstance(file, dict) else str(file)


def cost_facts(data: dict[str, Any]) -> list[str]:
    """Tokens and money, from the data of `run.completed`."""
    usage = data.get("usage") or {}
    facts = []
    if usage.get("input_tokens") or usage.get("output_tokens"):
        facts.append(f"{usage.get('input_tokens', 0):,} tokens in, {usage.get('output_tokens', 0):,} out")
    cost = data.get("cost")
    if cost:
        facts.append(f"${cost:.4f}")
    return facts


def _duration(time: timedelta) -> str:
    seconds = time.total_seconds()
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def _short(text: str) -> str:
    first, *more = text.strip().split("\n") or [""]
    cut = first[:120]
    return cut + (" …" if more or len(first) > len(cut) else "")


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(", ", ": "))
