"""A sandbox of any provider, and what one run of an agent does in it."""

import itertools
from typing import Any

from shared.ids import new_thread_id
from workflow.sandbox.base import Command, ExecResult, Sandbox, SandboxProvider, Task


class Box:
    def __init__(self, provider: SandboxProvider, sandbox: Sandbox, thread_id: str) -> None:
        self.provider = provider
        self.sandbox = sandbox
        self.thread_id = thread_id
        self.run_id = f"{thread_id}.run"
        self.shown = ""
        self._numbers = itertools.count()

    def key(self) -> str:
        return f"{self.run_id}/tool:{next(self._numbers)}"

    async def show(self, stream: str, text: str) -> None:
        assert stream == "output"
        self.shown += text

    async def run(self, command: str, **fields: Any) -> ExecResult:
        key, epoch = fields.pop("key", self.key()), fields.pop("epoch", 1)
        return await self.sandbox.exec(Command(key, epoch, command, **fields), self.show)

    async def text(self, command: str, **fields: Any) -> str:
        """What it prints."""
        result = await self.run(command, **fields)
        return result.output.head + result.output.tail

    async def kill(self, background: ExecResult) -> Task:
        return await self.sandbox.kill_task(str(background.task_id), self.key(), 1)


async def new_box(provider: SandboxProvider) -> Box:
    thread_id = new_thread_id()
    return Box(provider, await provider.acquire(thread_id, None), thread_id)
