"""Machines at E2B. Needs the extra `e2b`.

A machine has an absolute end, which every use puts off; there it is paused with its processes, not killed. `timeout` of
a command is a promise of E2B's server, so there is a clock of our own beside it.
"""

import asyncio
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import e2b

from shared.config import E2BSettings
from shared.install import Install
from workflow.sandbox import machine
from workflow.sandbox.base import Endpoint, Network, SandboxRefused, SandboxUnavailable
from workflow.sandbox.machine import (
    Allowance,
    Found,
    MachineGone,
    MachineStopped,
    MachineUnreachable,
    Ran,
    cancellation_kept,
    collected,
    labels_of,
    labels_to_find,
)
from workflow.sandbox.ways import Way, web_way

LATE_SECONDS = 5.0  # after E2B should have ended a command, until we no longer wait for its answer
REQUEST_SECONDS = 30.0
TRANSFER_SECONDS = 120.0
TWIN_SECONDS = 60
"""Within them, making a thread's machine twice makes one."""


class E2BMachine:
    def __init__(self, sandbox: e2b.AsyncSandbox, settings: E2BSettings) -> None:
        self._sandbox = sandbox
        self._timeout = settings.idle_seconds
        self._url = settings.sandbox_url or os.environ.get("E2B_SANDBOX_URL")
        self._scheme = urlsplit(settings.sandbox_url or "https://").scheme
        self.machine_id = sandbox.sandbox_id

    async def run(self, script: str, seconds: float) -> Ran:
        take = Allowance(machine.MAX_PRINTED).take
        with translated():
            try:
                async with asyncio.timeout(seconds + LATE_SECONDS):
                    result = await self._sandbox.commands.run(script, timeout=seconds, on_stdout=take, on_stderr=take)
            except e2b.CommandExitException as failed:
                return Ran(failed.exit_code, failed.stdout, failed.stderr)
        return Ran(result.exit_code, result.stdout, result.stderr)

    async def put(self, path: str, content: bytes) -> None:
        with translated():
            async with asyncio.timeout(TRANSFER_SECONDS):
                await self._sandbox.files.write(path, content, request_timeout=TRANSFER_SECONDS)

    async def get(self, path: str, limit: int) -> bytes:
        with translated():
            pieces = await self._sandbox.files.read(path, format="stream", request_timeout=TRANSFER_SECONDS)
            async with asyncio.timeout(TRANSFER_SECONDS), pieces:
                return await collected(pieces, limit)

    async def expose(self, port: int, seconds: int) -> Endpoint | None:
        """E2B's addresses do not end before the machine does. Without a token they let in whoever knows its id; no
        browser can be told to send one.
        """
        if self._sandbox.traffic_access_token:
            return None
        return Endpoint(f"{self._scheme}://{self._sandbox.get_host(port)}/", None, public=True)

    async def way(self, port: int) -> Way:
        token = self._sandbox.traffic_access_token
        headers = {"e2b-traffic-access-token": token} if token else {}
        if self._url:
            place = {"e2b-sandbox-id": self.machine_id, "e2b-sandbox-port": str(port)}
            return web_way(self._url, {**headers, **place})
        return web_way(f"https://{self._sandbox.get_host(port)}", headers)

    async def extend(self) -> None:
        with translated():
            await self._sandbox.set_timeout(self._timeout, request_timeout=REQUEST_SECONDS)


class E2BCloud:
    name = "e2b"
    image_hint = "Choose another template by e2b.template: it needs bash, Python 3.9 or later, and sudo or /workspace."

    def __init__(self, settings: E2BSettings, network: Network, install: Install, *, public: bool = False) -> None:
        """`public`: whoever knows a machine's id may see what it serves."""
        self._settings = settings
        self._network = network
        self._public = public
        self._install = install
        self.extend_seconds = settings.idle_seconds / 3
        key = settings.api_key.get_secret_value() if settings.api_key else None
        given = {"api_key": key, "api_url": settings.api_url, "sandbox_url": settings.sandbox_url}
        self._options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        self._options["request_timeout"] = REQUEST_SECONDS

    async def create(self, thread_id: str, instead_of: str | None) -> E2BMachine:
        occasion = f"{self._install.name} {thread_id} {instead_of} {time.time() // TWIN_SECONDS:.0f}"
        with translated():
            sandbox = await e2b.AsyncSandbox.create(
                self._settings.template,
                timeout=self._settings.idle_seconds,
                metadata=labels_of(self._install, thread_id),
                **network_options(self._network, public=self._public),
                lifecycle={"on_timeout": "pause", "auto_resume": False},
                idempotency_key=str(uuid.uuid5(uuid.NAMESPACE_OID, occasion)),
                **self._options,
            )
        return E2BMachine(sandbox, self._settings)

    async def connect(self, machine_id: str) -> E2BMachine:
        seconds = self._settings.idle_seconds
        with translated():
            sandbox = await e2b.AsyncSandbox.connect(machine_id, timeout=seconds, **self._options)
        return E2BMachine(sandbox, self._settings)

    async def find(self, thread_id: str | None = None) -> Sequence[Found]:
        labels = labels_to_find(self._install, thread_id)
        found = []
        with translated():
            pages = e2b.AsyncSandbox.list(query=e2b.SandboxQuery(metadata=labels), **self._options)
            while pages.has_next:
                found += await pages.next_items()
        return [Found.labelled(each.sandbox_id, each.metadata, each.started_at.timestamp()) for each in found]

    async def remove(self, machine_id: str) -> None:
        with translated():
            await e2b.AsyncSandbox.kill(machine_id, **self._options)

    async def close(self) -> None:
        """The SDK keeps its connections itself."""


def network_options(network: Network, *, public: bool) -> dict[str, Any]:
    """As the SDK takes it. E2B lets through what is allowed, and only then asks what is denied."""
    inward = {"allow_public_traffic": public}
    if network.policy == "allow":
        return {"network": {**inward, "allow_out": list(network.hosts), "deny_out": [e2b.ALL_TRAFFIC]}}
    return {"network": inward, "allow_internet_access": network.policy == "open"}


@contextmanager
def translated() -> Iterator[None]:
    """What the SDK raises, as the protocol has it."""
    try:
        with cancellation_kept():
            yield
    except e2b.AuthenticationException as error:
        raise SandboxUnavailable(f"E2B does not take the key: set e2b.api_key or E2B_API_KEY ({error}).") from error
    except e2b.SandboxNotFoundException as error:
        raise MachineGone(str(error)) from error
    except e2b.SandboxNotRunningException as error:
        raise MachineStopped(str(error)) from error
    except e2b.NotEnoughSpaceException as error:
        raise SandboxRefused("the sandbox's disk is full: delete files first") from error
    except (e2b.InvalidArgumentException, e2b.TemplateException) as error:
        raise SandboxUnavailable(f"E2B refuses what the section e2b of the settings asks for: {error}") from error
    except (e2b.CommandExitException, SandboxRefused):
        raise
    except Exception as error:
        raise MachineUnreachable(f"{type(error).__name__}: {error}") from error
