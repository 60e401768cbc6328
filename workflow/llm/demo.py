"""The demo model: no AI and no account, but real work with the real tools, so that Trunkline can be seen working.

It looks at what it is asked, writes a small script for it, runs that, and reports what came out. Each turn follows from
the conversation alone, so that a run that was interrupted goes on where it was.
"""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

from shared.types import JSON
from workflow.llm.demo_jobs import Job, job_for
from workflow.llm.scripted import replay
from workflow.llm.types import NO_PRICE, NO_USAGE, ModelRequest, ModelResponse, TextDelta, ThinkingDelta, ToolCall

DEMO = "demo"
HOW_TO_SET_A_REAL_ONE = (
    "For a real model, set ANTHROPIC_API_KEY, OPENAI_API_KEY or GEMINI_API_KEY, "
    "or TRUNKLINE__LLM__MODEL to any LiteLLM model name "
    "(and TRUNKLINE__LLM__BASE_URL for an OpenAI-compatible server of your own), and start again."
)
WHAT_IT_IS = f"I am the demo model: a script, not an AI. {HOW_TO_SET_A_REAL_ONE}"
WORD_SECONDS = 0.012
QUOTED_CHARS = 4_000

# How the tools' answers begin and end (workflow/tool/write_files.py, bash.py).
WRITTEN = "Wrote "
ENDING = re.compile(r"^\[exit code (-?\d+).*\]$", re.MULTILINE)


class DemoModel:
    """`pause` is awaited after each word."""

    name = DEMO
    context_tokens = 1_000_000  # it reads the task and the tools' results, whatever their length
    price = NO_PRICE
    deployment = None

    def __init__(self, pause: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._pause = pause

    async def stream(self, request: ModelRequest) -> AsyncGenerator[TextDelta | ThinkingDelta | ModelResponse, None]:
        """See `Model.stream`. Never fails."""
        async for item in replay(next_turn(request)):
            yield item
            if not isinstance(item, ModelResponse):
                await self._pause(WORD_SECONDS)


def next_turn(request: ModelRequest) -> ModelResponse:
    """What to say and to call after this conversation."""
    task, results = _since_the_task(request.messages)
    offered = {tool["function"]["name"] for tool in request.tools}
    job = job_for(task)
    text, calls = _next_calls(job, offered, results)
    if not calls:
        return ModelResponse(_report(job, results), usage=NO_USAGE)
    numbered = [
        ToolCall(f"demo_{len(request.messages)}_{place}", name, json.dumps(arguments))
        for place, (name, arguments) in enumerate(calls)
    ]
    opening = "" if results else f"{WHAT_IT_IS}\n\n"
    return ModelResponse(opening + text, tool_calls=numbered, usage=NO_USAGE, finish_reason="tool_calls")


def _since_the_task(messages: list[JSON]) -> tuple[str, dict[str, str]]:
    """The last user message, and what each tool called since has answered last."""
    last = max(place for place, message in enumerate(messages) if message["role"] == "user")
    names, results = {}, {}
    for message in messages[last + 1 :]:
        for call in message.get("tool_calls") or ():
            names[call["id"]] = call["function"]["name"]
        if message["role"] == "tool":
            results[names[message["tool_call_id"]]] = message["content"]
    return messages[last]["content"], results


def _next_calls(job: Job, offered: set[str], results: Mapping[str, str]) -> tuple[str, list[tuple[str, JSON]]]:
    todo = offered - results.keys()
    if "ls" in todo and not results:
        return "First a look at what is there.", [("ls", {})]
    there = [file for file in job.files if re.search(rf"(?<![\w.-]){re.escape(file)}(?![\w.-])", results.get("ls", ""))]
    if there and "read_file" in todo and "write_files" in todo:
        return f"I read {_names(there)} before I replace it.", [("read_file", {"file_path": file}) for file in there]
    if "write_files" in todo and "bash" not in results:
        files = [{"file_path": file, "content": content} for file, content in job.files.items()]
        return f"I write {job.what}: {_names(job.files)}.", [("write_files", {"files": files})]
    if "bash" in todo:
        written = results.get("write_files", "").startswith(WRITTEN)
        text = f"Now I run `{job.command}`." if written else f"I write {job.what} with the shell, and run it."
        command = job.command if written else _shell_writes(job) + job.command
        return text, [("bash", {"command": command, "description": f"Run {job.script}"})]
    return "", []


def _shell_writes(job: Job) -> str:
    """Commands that write the job's files, for where there is no tool for that or it refused."""
    return "".join(f"cat > {file} <<'END_OF_FILE'\n{content}END_OF_FILE\n" for file, content in job.files.items())


def _report(job: Job, results: Mapping[str, str]) -> str:
    if not results:
        return f"{WHAT_IT_IS}\n\nI was given no tool that I can use."
    tool, answer = list(results.items())[-1]
    endings = list(ENDING.finditer(answer)) if tool == "bash" else []
    worked = bool(endings) and endings[-1][1] == "0"
    quoted = f"```\n{_short(answer[: endings[-1].start()] if worked else answer)}\n```"
    if worked:
        return f"I wrote {_names(job.files)} and ran `{job.command}`. Its output:\n\n{quoted}"
    if tool == "bash":
        return f"I ran `{job.command}`, and it did not go well. The tool's answer:\n\n{quoted}"
    return f"I have no tool to run commands with. The last thing I did was `{tool}`; its answer:\n\n{quoted}"


def _names(files: Mapping[str, str] | list[str]) -> str:
    return " and ".join(f"`{file}`" for file in files)


def _short(text: str) -> str:
    if len(text) <= QUOTED_CHARS:
        return text.strip("\n")
    return f"{text[:QUOTED_CHARS].strip()}\n[… {len(text) - QUOTED_CHARS:,} characters more …]"
