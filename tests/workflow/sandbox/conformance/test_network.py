"""What the clouds are asked for, so that a machine reaches what the settings say and no more."""

from typing import Any

import pytest

from shared.config import Settings
from shared.ids import new_thread_id
from shared.install import Install
from tests.support.daytona_double import DaytonaDouble
from tests.support.e2b_double import E2BDouble
from tests.workflow.sandbox.conformance.conftest import daytona_settings, e2b_settings
from workflow.sandbox.base import Network
from workflow.sandbox.choose import choose_provider

HOSTS = ["packages.example.com", "*.files.example.com"]


async def asked_of(double: E2BDouble | DaytonaDouble, settings: Settings, network: str) -> dict[str, Any]:
    sandbox = settings.sandbox.model_copy(
        update={"network": network, "allowed_hosts": HOSTS if network == "allow" else []}
    )
    provider = choose_provider(settings.model_copy(update={"sandbox": sandbox}), Install("tests", "tests"))
    made = await provider.acquire(new_thread_id(), None)
    assert made.capabilities.network == Network(network, tuple(sandbox.allowed_hosts))  # type: ignore[arg-type]
    await provider.close()
    (machine,) = double.boxes.values()
    return machine.asked


@pytest.mark.parametrize(
    ("network", "internet", "out"),
    [
        ("none", False, {}),
        ("open", True, {}),
        ("allow", None, {"allowOut": HOSTS, "denyOut": ["0.0.0.0/0"]}),
    ],
)
async def test_e2b_is_told_what_a_machine_reaches(network: str, internet: bool | None, out: dict[str, Any]) -> None:
    async with E2BDouble() as double:
        asked = await asked_of(double, e2b_settings(double), network)
    assert asked["network"] == {**out, "allowPublicTraffic": False}
    assert out or asked["allow_internet_access"] is internet


@pytest.mark.parametrize(
    ("network", "blocked", "domains"), [("none", True, None), ("open", False, None), ("allow", False, ",".join(HOSTS))]
)
async def test_daytona_is_told_what_a_machine_reaches(network: str, blocked: bool, domains: str | None) -> None:
    async with DaytonaDouble() as double:
        asked = await asked_of(double, daytona_settings(double), network)
    assert (asked["networkBlockAll"], asked.get("domainAllowList")) == (blocked, domains)
