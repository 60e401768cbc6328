"""Every provider that can be had here: `local` for real; E2B's and Daytona's SDKs against doubles over HTTP; the real
services where a key is in the environment; Docker where an engine answers.
"""

import os
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import docker
import pytest
from docker.errors import DockerException

from shared.config import DockerSettings, Settings
from shared.install import Install
from tests.support.daytona_double import DaytonaDouble
from tests.support.e2b_double import E2BDouble
from tests.workflow.sandbox.conformance.box import Box, new_box
from tests.workflow.sandbox.support import Host
from workflow.sandbox.base import SandboxProvider
from workflow.sandbox.choose import choose_provider
from workflow.sandbox.remote_provider import RemoteProvider

KINDS = ["local", "e2b_double", pytest.param("daytona_double", marks=pytest.mark.slow), "e2b", "daytona", "docker"]
DOCKER_SOCKET = Path("/var/run/docker.sock")
MODE = "root" if os.geteuid() == 0 else "user"


@pytest.fixture(scope="package")
def local_settings() -> Iterator[Settings]:
    with Host(MODE) as host:
        yield host.settings


def e2b_settings(double: E2BDouble, **fields: object) -> Settings:
    section = {"api_key": double.key, "api_url": double.api_url, "sandbox_url": double.api_url, **fields}
    return Settings.model_validate({"sandbox": {"provider": "e2b"}, "e2b": section})


def daytona_settings(double: DaytonaDouble, **fields: object) -> Settings:
    section = {"api_key": double.key, "api_url": double.api_url, **fields}
    return Settings.model_validate({"sandbox": {"provider": "daytona"}, "daytona": section})


def docker_problem() -> str | None:
    """Why there are no containers to be had here."""
    if "DOCKER_HOST" not in os.environ and not DOCKER_SOCKET.exists():  # the SDK leaks a socket where it cannot connect
        return "no Docker engine answers here"
    try:
        client = docker.from_env()
        client.images.get(DockerSettings().image)
        client.close()
    except DockerException as error:
        return f"no Docker sandboxes here: {error}"
    return None


@asynccontextmanager
async def remote_settings(kind: str) -> AsyncIterator[Settings]:
    """Settings under which sandboxes are of that kind, while it is entered."""
    match kind:
        case "e2b_double":
            async with E2BDouble() as double:
                yield e2b_settings(double)
        case "daytona_double":
            async with DaytonaDouble() as double:
                yield daytona_settings(double)
        case "e2b" | "daytona":
            if f"{kind.upper()}_API_KEY" not in os.environ:
                pytest.skip(f"{kind.upper()}_API_KEY is not set")
            yield Settings.model_validate({"sandbox": {"provider": kind}})
        case "docker":
            if problem := docker_problem():
                pytest.skip(problem)
            yield Settings.model_validate({"sandbox": {"provider": "docker"}})


@pytest.fixture(params=KINDS)
async def provider(request: pytest.FixtureRequest) -> AsyncIterator[SandboxProvider]:
    if request.param == "local":
        local = choose_provider(request.getfixturevalue("local_settings"), Install("tests", "tests"))
        yield local
        await local.close()
        return
    async with remote_settings(request.param) as settings:
        remote = choose_provider(settings, Install(f"tests-{secrets.token_hex(4)}", "tests"))
        assert isinstance(remote, RemoteProvider)
        yield remote
        for found in await remote.cloud.find():
            await remote.cloud.remove(found.machine_id)
        await remote.close()


@pytest.fixture
async def box(provider: SandboxProvider) -> Box:
    return await new_box(provider)
