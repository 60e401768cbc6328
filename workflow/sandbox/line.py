"""The line to a thread's remote machine, whichever that is now: patience, resuming, another one for one gone."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError

from shared.types import JSON
from workflow.sandbox import wire
from workflow.sandbox.base import Endpoint, SandboxLost, SandboxRefused, SandboxUnavailable
from workflow.sandbox.helper import ANSWER_SECONDS, NONSENSE, Helper, HelperMissing
from workflow.sandbox.machine import MachineError, MachineGone, MachineStopped, MachineUnreachable
from workflow.sandbox.ways import Way

PATIENCE_SECONDS = 10.0  # with a machine that does not answer, from the first failure on
RETRY_SECONDS = 0.3
MAX_RENEWALS = 3  # within one call: a machine that ends again and again is no sandbox

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Opened:
    """`helper` None: the machine is gone, and another one is made when there is something to do."""

    helper: Helper | None
    ref: JSON
    notice: str | None
    blank: bool = True
    """As base.Packable has it."""


class Line:
    """What was asked and not answered is asked again: every operation with an effect is keyed."""

    def __init__(self, opened: Opened, name: str, reopen: Callable[[JSON, bool], Awaitable[Opened]]) -> None:
        """`reopen(ref, make)` finds the machine again, or makes one if it may. Raises SandboxUnavailable."""
        self.ref = opened.ref
        self.notice = opened.notice
        self.blank = opened.blank
        self._helper = opened.helper
        self._name = name
        self._reopen = reopen
        self._renewing = asyncio.Lock()

    @property
    def there(self) -> bool:
        """False while the thread has no machine."""
        return self._helper is not None

    async def extend(self) -> None:
        """Raises MachineError, SandboxUnavailable."""
        if self._helper:
            await self._helper.machine.extend()

    async def expose(self, port: int, seconds: int) -> Endpoint | None:
        """Raises SandboxUnavailable, SandboxRefused."""
        return await self._tried(lambda helper: helper.machine.expose(port, seconds))

    async def way(self, port: int) -> Way:
        """Raises MachineGone, SandboxUnavailable, SandboxRefused."""
        return await self._tried(lambda helper: helper.machine.way(port), replace=False)

    async def put_part(self, name: str, number: int, content: bytes) -> None:
        """Of what goes in by the transfer of that name. Raises SandboxError."""
        await self._tried(lambda helper: helper.put_part(name, number, content))

    async def get_part(self, name: str, number: int, size: int) -> bytes:
        """Of what comes out. Raises MachineGone, SandboxError."""
        return await self._tried(lambda helper: helper.get_part(name, number, size), replace=False)

    async def ask(
        self,
        kind: type[T],
        op: str,
        request: Mapping[str, Any],
        data: bytes = b"",
        *,
        once: bool = False,
        replace: bool = True,
        seconds: float = ANSWER_SECONDS,
    ) -> tuple[T, bytes]:
        """The answer, and the bytes with it. Raises SandboxError.

        `once`: it has an effect; where a machine that ends may have seen it, SandboxLost is raised, and no other one is
        asked. Not `replace`: MachineGone is raised, and no other machine is made.
        """
        answer, content = await self._tried(lambda helper: helper.ask(op, request, data, seconds), once, replace)
        try:
            return wire.adapter(kind).validate_python(answer), content
        except ValidationError as error:
            raise SandboxRefused(NONSENSE) from error

    async def _tried(self, call: Callable[[Helper], Awaitable[T]], once: bool = False, replace: bool = True) -> T:
        attempt = _Attempt(self._name)
        while True:
            helper = self._helper or await self._renew(None, replace)
            try:
                return await call(helper)
            except MachineUnreachable as error:
                await attempt.wait(error)
            except (MachineGone, MachineStopped, HelperMissing) as error:
                attempt.count_renewal(error)
                now = await self._renew(helper, replace)
                other = now.machine.machine_id != helper.machine.machine_id
                if once and attempt.may_have_arrived and other:
                    raise SandboxLost("the sandbox ended meanwhile: what became of the call is not known") from error

    async def _renew(self, broken: Helper | None, replace: bool) -> Helper:
        """One for all who find the same one broken. Raises MachineGone, SandboxUnavailable."""
        async with self._renewing:
            if self._helper is broken or self._helper is None:
                opened = await self._reopen(self.ref, replace)
                self._helper, self.ref, self.notice = opened.helper, opened.ref, opened.notice or self.notice
                self.blank = opened.blank
            if self._helper is None:
                raise MachineGone("it is gone")
            return self._helper


class _Attempt:
    """Of one call: how often, and how long, it may be tried."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._ends: float | None = None
        self._renewals = 0

    @property
    def may_have_arrived(self) -> bool:
        return self._ends is not None

    async def wait(self, error: MachineError) -> None:
        """Before it is tried again. Raises SandboxUnavailable once patience is over."""
        self._ends = self._ends or time.monotonic() + PATIENCE_SECONDS
        if time.monotonic() > self._ends:
            raise unavailable(self._name, error) from error
        await asyncio.sleep(RETRY_SECONDS)

    def count_renewal(self, error: MachineError) -> None:
        self._renewals += 1
        if self._renewals > MAX_RENEWALS:
            raise unavailable(self._name, error) from error


def unavailable(name: str, error: MachineError) -> SandboxUnavailable:
    return SandboxUnavailable(f"The sandbox at {name} does not answer: {error}. What goes on in it may go on.")
