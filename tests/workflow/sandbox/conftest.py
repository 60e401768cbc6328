"""One sandbox host for each way to start it; tests that need a host of their own make one (support.Host)."""

import os
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.workflow.sandbox.support import Box, Host, new_box
from workflow.sandbox.local import LocalProvider

SECRET = "not-for-the-sandbox"


@pytest.fixture(scope="package", params=["root", "user"])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """A host that was started by root, and one that was started by an ordinary user."""
    if request.param == "root" and os.geteuid() != 0:
        pytest.skip("only root can start the host as root")
    with Host(request.param, {"TRUNKLINE_TEST_SECRET": SECRET}) as running:
        yield running


@pytest.fixture
async def provider(host: Host) -> AsyncIterator[LocalProvider]:
    provider = LocalProvider(host.settings)
    yield provider
    await provider.close()


@pytest.fixture
async def box(provider: LocalProvider) -> AsyncIterator[Box]:
    """Its host outlives the test; what it left at work there would disturb all that follow."""
    box = await new_box(provider)
    yield box
    await box.end_tasks()
