"""Machines at Daytona. Needs the extra `daytona` (the package `daytona-sdk` is an old name of it).

A machine is stopped after minutes without use, by Daytona's count: requests to the machine itself and what its
processes do are no use to it, so `extend` says that there is some. Every interval is sent, whatever the default.
"""

import asyncio
import hashlib
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from datetime import datetime
from http import HTTPStatus
from typing import Any

import daytona
from daytona import AsyncDaytona, AsyncSandbox
from daytona_toolbox_api_client_async import ExecuteRequest
from pydantic_core import from_json

from shared.config import DaytonaSettings
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

JSON_BYTES = 6  # that a character takes at most, as \u001b does
REFUSALS: dict[int, type[daytona.DaytonaError]] = {
    HTTPStatus.UNAUTHORIZED: daytona.DaytonaAuthenticationError,
    HTTPStatus.FORBIDDEN: daytona.DaytonaForbiddenError,
    HTTPStatus.NOT_FOUND: daytona.DaytonaNotFoundError,
    HTTPStatus.GONE: daytona.DaytonaGoneError,
}
LATE_SECONDS = 5.0  # after Daytona should have ended a command, until we no longer wait for its answer
REQUEST_SECONDS = 30.0
TRANSFER_SECONDS = 120
MINUTE = 60
PROXY_KEEPS_OUT = {"x-daytona-skip-preview-warning": "true", "x-daytona-disable-cors": "true"}
"""Of what the server says: neither a page of its own before it, nor headers of its own in it."""
GONE = ("destroyed", "destroying")
FAILED = ("error", "build_failed")
NOT_STARTED = "is the sandbox started"  # how the toolbox of a stopped machine refuses


class DaytonaMachine:
    def __init__(self, sandbox: AsyncSandbox) -> None:
        self._sandbox = sandbox
        self.machine_id = str(sandbox.id)

    async def run(self, script: str, seconds: float) -> Ran:
        """stderr is in stdout: Daytona has one stream, which comes as a whole.

        By the client that the SDK wraps: the SDK reads any answer to its end.
        """
        request = ExecuteRequest(command=f"bash -c {shlex.quote(script)}", timeout=int(seconds))
        api = self._sandbox.process._api_client
        with translated():
            late = seconds + LATE_SECONDS
            async with asyncio.timeout(late):
                answer = await api.execute_command_without_preload_content(request, _request_timeout=float(late))
                async with answer:
                    body = await collected(answer.content.iter_any(), JSON_BYTES * machine.MAX_PRINTED)
            told = _told(answer.status, from_json(body))
        Allowance(machine.MAX_PRINTED).take(told["result"])
        return Ran(int(told["exitCode"]), told["result"], "")

    async def put(self, path: str, content: bytes) -> None:
        with translated():
            async with asyncio.timeout(TRANSFER_SECONDS):
                await self._sandbox.fs.upload_file(content, path, timeout=TRANSFER_SECONDS)

    async def get(self, path: str, limit: int) -> bytes:
        with translated():
            async with asyncio.timeout(TRANSFER_SECONDS):
                pieces = await self._sandbox.fs.download_file_stream(path, timeout=TRANSFER_SECONDS)
                async with aclosing(pieces):  # type: ignore[type-var]  # it is a generator
                    return await collected(pieces, limit)

    async def expose(self, port: int, seconds: int) -> Endpoint:
        with translated():
            signed = await self._sandbox.create_signed_preview_url(port, expires_in_seconds=seconds)
        return Endpoint(signed.url, time.time() + seconds, public=False)

    async def way(self, port: int) -> Way:
        with translated():
            link = await self._sandbox.get_preview_link(port, request_timeout=REQUEST_SECONDS)
        return web_way(link.url, {"x-daytona-preview-token": link.token, **PROXY_KEEPS_OUT})

    async def extend(self) -> None:
        with translated():
            await self._sandbox.refresh_activity(request_timeout=REQUEST_SECONDS)


class DaytonaCloud:
    name = "daytona"
    image_hint = "Choose another snapshot by daytona.snapshot: it needs bash, Python 3.9, and sudo or /workspace."

    def __init__(self, settings: DaytonaSettings, network: Network, install: Install) -> None:
        self._settings = settings
        self._network = network
        self._install = install
        self._known: AsyncDaytona | None = None
        self.extend_seconds = settings.idle_seconds / 3

    async def create(self, thread_id: str, instead_of: str | None) -> DaytonaMachine:
        occasion = hashlib.sha256(str(instead_of).encode()).hexdigest()[:8]
        params = daytona.CreateSandboxFromSnapshotParams(
            name=f"trunkline-{self._install.name}-{thread_id}-{occasion}",  # no second one may have it
            snapshot=self._settings.snapshot,
            labels=labels_of(self._install, thread_id),
            network_block_all=self._network.policy == "none",
            domain_allow_list=",".join(self._network.hosts) or None,
            auto_stop_interval=self._settings.idle_seconds // MINUTE,
            auto_archive_interval=self._settings.archive_minutes,
            auto_delete_interval=self._settings.delete_minutes,
        )
        try:
            return await self._create(params)
        except _NameTaken:
            with translated():
                sandbox = await self._client().get(str(params.name), request_timeout=REQUEST_SECONDS)
        if _state(sandbox) in FAILED:
            with suppress(MachineGone), translated():
                await sandbox.delete(timeout=REQUEST_SECONDS, wait=True)
            return await self._create(params)
        with translated():
            await self._start(sandbox)
        return DaytonaMachine(sandbox)

    async def _create(self, params: daytona.CreateSandboxFromSnapshotParams) -> DaytonaMachine:
        with translated():
            try:
                return DaytonaMachine(await self._client().create(params, timeout=self._settings.start_seconds))
            except daytona.DaytonaConflictError as error:
                raise _NameTaken(str(error)) from error

    async def connect(self, machine_id: str) -> DaytonaMachine:
        with translated():
            sandbox = await self._client().get(machine_id, request_timeout=REQUEST_SECONDS)
            await self._start(sandbox)
        return DaytonaMachine(sandbox)

    async def find(self, thread_id: str | None = None) -> Sequence[Found]:
        labels = labels_to_find(self._install, thread_id)
        with translated():
            query = daytona.ListSandboxesQuery(labels=labels)
            found = [each async for each in self._client().list(query, request_timeout=REQUEST_SECONDS)]
        return [_found(each) for each in found if _state(each) not in GONE]

    async def remove(self, machine_id: str) -> None:
        with suppress(MachineGone), translated():
            sandbox = await self._client().get(machine_id, request_timeout=REQUEST_SECONDS)
            await sandbox.delete(timeout=REQUEST_SECONDS)

    async def close(self) -> None:
        if self._known:
            await self._known.close()  # type: ignore[no-untyped-call]

    def _client(self) -> AsyncDaytona:
        """Made when it is first needed: the SDK refuses to be made without a key."""
        if self._known is None:
            key = self._settings.api_key.get_secret_value() if self._settings.api_key else None
            config = daytona.DaytonaConfig(api_key=key, api_url=self._settings.api_url, target=self._settings.target)
            self._known = AsyncDaytona(config)
        return self._known

    async def _start(self, sandbox: AsyncSandbox) -> None:
        """Raises MachineGone."""
        if _state(sandbox) in (*GONE, *FAILED):
            raise MachineGone(f"it is {_state(sandbox)}")
        if _state(sandbox) != "started":
            await sandbox.start(timeout=self._settings.start_seconds)


def _told(status: int, answer: Any) -> Any:
    """Raises DaytonaError where it is a refusal."""
    if status == HTTPStatus.OK:
        return answer
    kind = REFUSALS.get(status, daytona.DaytonaError)
    raise kind(f"{status}: {answer.get('message')}")


class _NameTaken(MachineUnreachable):
    """There is, or was a moment ago, a machine of that name."""


def _found(sandbox: AsyncSandbox) -> Found:
    failed = _state(sandbox) in FAILED
    return Found.labelled(str(sandbox.id), sandbox.labels, _seconds(sandbox.created_at), failed=failed)


def _state(sandbox: AsyncSandbox) -> str:
    return str(sandbox.state.value) if sandbox.state else ""


def _seconds(moment: str | datetime | None) -> float:
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    return moment.timestamp() if moment else 0.0


@contextmanager
def translated() -> Iterator[None]:
    """What the SDK raises, as the protocol has it."""
    try:
        with cancellation_kept():
            yield
    except (MachineGone, _NameTaken, SandboxRefused):
        raise
    except (daytona.DaytonaAuthenticationError, daytona.DaytonaForbiddenError) as error:
        raise SandboxUnavailable(
            f"Daytona does not take the key: set daytona.api_key or DAYTONA_API_KEY ({error})."
        ) from error
    except (daytona.DaytonaNotFoundError, daytona.DaytonaGoneError) as error:
        raise MachineGone(str(error)) from error
    except daytona.DaytonaError as error:
        if NOT_STARTED in str(error).lower():
            raise MachineStopped(str(error)) from error
        raise MachineUnreachable(f"{type(error).__name__}: {error}") from error
    except Exception as error:  # the SDK lets through what its libraries raise
        raise MachineUnreachable(f"{type(error).__name__}: {error}") from error
