"""Which remote machine is a thread's: found by its ref, then by its label, then made. Those in use are kept alive."""

import asyncio
import contextlib
import logging
import weakref
from collections.abc import Sequence

from shared.types import JSON
from workflow.sandbox.base import Capabilities, SandboxError
from workflow.sandbox.helper import open_helper
from workflow.sandbox.line import Line, Opened, unavailable
from workflow.sandbox.machine import Cloud, Found, Machine, MachineError, MachineGone, MachineStopped
from workflow.sandbox.remote import RemoteSandbox

log = logging.getLogger("trunkline.sandbox")

RESTARTED = "The sandbox was restarted since you last used it: background tasks have ended. Its files are as they were."
REPLACED = (
    "The sandbox that you used before is gone, and a new one was made: its files and background tasks are lost, "
    "and the workspace is empty."
)


class RemoteProvider:
    """Belongs to one event loop."""

    def __init__(self, cloud: Cloud, capabilities: Capabilities, longest_seconds: float) -> None:
        self.cloud = cloud
        self._capabilities = capabilities
        self._longest = longest_seconds
        self._held: weakref.WeakSet[RemoteSandbox] = weakref.WeakSet()
        """Those that a run still refers to: the protocol has no word for giving one back."""
        self._turns: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._keeping: asyncio.Task[None] | None = None

    async def acquire(self, thread_id: str, ref: JSON | None) -> RemoteSandbox:
        """Raises SandboxUnavailable. A machine that is gone is made anew only when there is something to do."""
        return self._hold(thread_id, await self._open(thread_id, ref, make=ref is None))

    async def look(self, thread_id: str) -> bool:
        """Whether the thread has a machine, running or not. Raises SandboxUnavailable."""
        try:
            return bool(by_age(await self.cloud.find(thread_id)))
        except MachineError as error:
            raise unavailable(self.cloud.name, error) from error

    async def find(self, thread_id: str) -> RemoteSandbox | None:
        """The one that the thread has, running again. Raises SandboxUnavailable."""
        opened = await self._open(thread_id, None, make=False)
        return self._hold(thread_id, opened) if opened.helper else None

    def _hold(self, thread_id: str, opened: Opened) -> RemoteSandbox:
        async def reopen(known: JSON, make: bool) -> Opened:
            return await self._open(thread_id, known, make=make)

        sandbox = RemoteSandbox(Line(opened, self.cloud.name, reopen), self._capabilities, self._longest)
        self._held.add(sandbox)
        self._keeping = self._keeping or asyncio.create_task(self._keep_alive())
        return sandbox

    async def close(self) -> None:
        if self._keeping:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])
        await self.cloud.close()

    async def _open(self, thread_id: str, ref: JSON | None, *, make: bool) -> Opened:
        turn = self._turns.setdefault(thread_id, asyncio.Lock())
        try:
            async with turn:
                machine = await self._find(thread_id, ref)
                if machine is None and not make:
                    return Opened(None, ref or {}, REPLACED)
                machine = machine or await self._make(thread_id, ref)
                return await self._opened(machine, ref)
        except MachineError as error:
            raise unavailable(self.cloud.name, error) from error

    async def _opened(self, machine: Machine, ref: JSON | None) -> Opened:
        helper, hello = await open_helper(machine, ref is not None, self.cloud.image_hint)
        now = {"provider": self.cloud.name, "id": machine.machine_id, "life": hello.life}
        if ref is None or ref == now:
            return Opened(helper, now, None, hello.blank)
        same = ref.get("provider") == self.cloud.name and ref.get("id") == machine.machine_id
        return Opened(helper, now, RESTARTED if same else REPLACED, hello.blank)

    async def _find(self, thread_id: str, ref: JSON | None) -> Machine | None:
        if ref is not None and ref.get("provider") == self.cloud.name:
            with contextlib.suppress(MachineGone):
                return await self.cloud.connect(str(ref["id"]))
        for found in by_age(await self.cloud.find(thread_id)):
            with contextlib.suppress(MachineGone):
                return await self.cloud.connect(found.machine_id)
        return None

    async def _make(self, thread_id: str, ref: JSON | None) -> Machine:
        """Where another worker did the same at the same time, both take the older one."""
        made = await self.cloud.create(thread_id, None if ref is None else str(ref.get("id")))
        oldest = next(iter(by_age(await self.cloud.find(thread_id))), None)
        if oldest is None or oldest.machine_id == made.machine_id:
            return made
        await self.cloud.remove(made.machine_id)
        return await self.cloud.connect(oldest.machine_id)

    async def _keep_alive(self) -> None:
        """While the model thinks, nobody uses the machine; it shall not expire under the run."""
        while True:
            await asyncio.sleep(self.cloud.extend_seconds)
            await asyncio.gather(*(self._extend(sandbox) for sandbox in list(self._held)))

    async def _extend(self, sandbox: RemoteSandbox) -> None:
        try:
            await sandbox.keep_alive()
        except (MachineGone, MachineStopped):
            pass  # the next call finds out, and says so
        except (MachineError, SandboxError) as error:
            log.warning("sandbox %s could not be kept alive: %s", sandbox.ref, error)
        except Exception:  # the others are to live on
            log.exception("sandbox %s could not be kept alive", sandbox.ref)


def by_age(found: Sequence[Found]) -> list[Found]:
    """Those that can run, oldest first: the same order for whoever asks."""
    return sorted(
        (machine for machine in found if not machine.failed),
        key=lambda machine: (machine.created_at, machine.machine_id),
    )
