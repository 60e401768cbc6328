"""The sandbox of a run's thread."""

import asyncio

import orjson

from shared.errors import AppError, ErrorCode
from shared.threads.attempt import Attempt, Change
from workflow.sandbox.base import Narrowable, Sandbox, SandboxProvider, SandboxRefused

NOT_NARROWABLE = (
    "The run's parameter allowed_hosts is for local sandboxes: others reach what the settings say. No command was run."
)


class ThreadSandbox:
    """The thread's sandbox, made or found at the first call; where it is found again is kept with the thread.

    `allowed`: whether the run's agent has one at all.
    """

    def __init__(self, attempt: Attempt, provider: SandboxProvider, *, allowed: bool = True) -> None:
        self._allowed = allowed
        self._attempt = attempt
        self._provider = provider
        self._sandbox: Sandbox | None = None
        self._making = asyncio.Lock()

    def in_use(self) -> bool:
        """Whether there is one already."""
        return self._sandbox is not None or (self._allowed and self._attempt.thread.sandbox is not None)

    async def __call__(self) -> Sandbox:
        """Raises SandboxUnavailable, SandboxRefused, Fenced; AppError UNSUPPORTED."""
        if not self._allowed:
            raise SandboxRefused("You have no sandbox: do without files and commands.")
        async with self._making:
            if self._sandbox is None:
                known = self._attempt.thread.sandbox
                sandbox = await self._provider.acquire(self._attempt.thread.sandbox_of, known)
                if sandbox.ref != known:
                    await self._attempt.commit(Change(thread={"sandbox": orjson.dumps(sandbox.ref)}))
                self._narrow(sandbox)
                self._sandbox = sandbox
            return self._sandbox

    def _narrow(self, sandbox: Sandbox) -> None:
        hosts = self._attempt.run.options.get("allowed_hosts")
        if hosts is None:
            return
        if isinstance(sandbox, Narrowable):
            sandbox.keep_to(hosts)
        elif hosts or sandbox.capabilities.network.policy != "none":
            raise AppError(ErrorCode.UNSUPPORTED, NOT_NARROWABLE)
