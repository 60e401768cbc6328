"""A gateway and a sandbox host that know each other, both real."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from shared.config import SandboxSettings
from tests.gateway.support import Gateway, serving, settings_for
from tests.workflow.sandbox.support import Host


@pytest.fixture(scope="package")
def host() -> Iterator[Host]:
    with Host("root" if os.geteuid() == 0 else "user") as running:
        yield running


@pytest.fixture
async def gateway(redis_url: str, tmp_path: Path, host: Host) -> AsyncIterator[Gateway]:
    sandbox = SandboxSettings(
        host_url=host.settings.sandbox.host_url, token_file=host.settings.sandbox_token_file, upload_bytes=20_000_000
    )
    async with serving(settings_for(redis_url, tmp_path, sandbox=sandbox)) as gateway:
        yield gateway
