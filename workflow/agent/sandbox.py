"""The sandbox of a run's thread."""

import asyncio

import orjson

from shared.errors import AppError, ErrorCode
from shared.net.hosts import common
from shared.threads.attempt import Attempt, Change
from workflow.sandbox.base import Narrowable, Sandbox, SandboxProvider, SandboxRefused
from workflow.sandbox.limits import Limitable, Limits

NOT_NARROWABLE = (
    "What a run or its agent says of the network is for local sandboxes: others reach what the settings say. No "
    "command was run."
)

NOT_LIMITABLE = "What an agent says of a sandbox's limits is for local sandboxes. No command was run."
OTHER_PROVIDER = (
    "The run's agent wants a sandbox of {sandbox_provider}, and sandboxes are of {now} now (sandbox.provider). Change "
    "the agent."
)


class ThreadSandbox:
    """The thread's sandbox, made or found at the first call; where it is found again is kept with the thread.

    What its agent says of it holds: whether there is one at all, of which provider, and what it reaches.
    """

    def __init__(self, attempt: Attempt, provider: SandboxProvider, *, provider_name: str) -> None:
        self._definition = attempt.run.definition or {}
        self._allowed = self._definition.get("sandbox", True)
        self._provider_name = provider_name
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
        if self._definition.get("sandbox_provider", self._provider_name) != self._provider_name:
            raise AppError(ErrorCode.UNSUPPORTED, OTHER_PROVIDER.format(**self._definition, now=self._provider_name))
        async with self._making:
            if self._sandbox is None:
                known = self._attempt.thread.sandbox
                sandbox = await self._provider.acquire(self._attempt.thread.sandbox_of, known)
                if sandbox.ref != known:
                    await self._attempt.commit(Change(thread={"sandbox": orjson.dumps(sandbox.ref)}))
                self._narrow(sandbox)
                self._limit(sandbox)
                self._sandbox = sandbox
            return self._sandbox

    def _limit(self, sandbox: Sandbox) -> None:
        limits = self._definition.get("sandbox_limits")
        if limits is None:
            return
        if not isinstance(sandbox, Limitable):
            raise AppError(ErrorCode.UNSUPPORTED, NOT_LIMITABLE)
        sandbox.limit(Limits(**limits))

    def _narrow(self, sandbox: Sandbox) -> None:
        said = (self._definition.get("allowed_hosts"), self._attempt.run.options.get("allowed_hosts"))
        both = [each for each in said if each is not None]
        if not both:
            return
        hosts = common(*both) if len(both) > 1 else both[0]
        if isinstance(sandbox, Narrowable):
            sandbox.keep_to(hosts)
        elif hosts or sandbox.capabilities.network.policy != "none":
            raise AppError(ErrorCode.UNSUPPORTED, NOT_NARROWABLE)
