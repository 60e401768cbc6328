"""The sandbox of a run's thread, and what the run lets it reach."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from shared.errors import AppError, ErrorCode
from workflow.agent.sandbox import ThreadSandbox
from workflow.sandbox.base import Capabilities, Network


class Elsewhere:
    """A sandbox that reaches what the settings say, whatever a run asks for."""

    def __init__(self, network: Network) -> None:
        self.ref = {"provider": "e2b"}
        self.capabilities = Capabilities(network)


class Here(Elsewhere):
    kept_to: Sequence[str] | None = None

    def keep_to(self, hosts: Sequence[str]) -> None:
        self.kept_to = hosts


def of_run(sandbox: Elsewhere, **parameters: Any) -> ThreadSandbox:
    async def acquire(thread_id: str, ref: Any) -> Elsewhere:
        return sandbox

    thread = SimpleNamespace(sandbox=sandbox.ref, sandbox_of="t")
    attempt: Any = SimpleNamespace(thread=thread, run=SimpleNamespace(options=parameters))
    provider: Any = SimpleNamespace(acquire=acquire)
    return ThreadSandbox(attempt, provider)


async def test_a_run_keeps_its_sandbox_to_its_hosts() -> None:
    narrowed, open_one = Here(Network("open")), Here(Network("open"))
    await of_run(narrowed, allowed_hosts=[])()
    await of_run(open_one)()
    assert (narrowed.kept_to, open_one.kept_to) == ([], None)


@pytest.mark.parametrize(("policy", "hosts"), [("open", []), ("allow", ["a.test"]), ("none", ["a.test"])])
async def test_a_sandbox_that_cannot_be_narrowed_is_not_given_out(policy: Any, hosts: list[str]) -> None:
    with pytest.raises(AppError, match="for local sandboxes") as refused:
        await of_run(Elsewhere(Network(policy)), allowed_hosts=hosts)()
    assert refused.value.code is ErrorCode.UNSUPPORTED


async def test_one_without_a_network_is_narrow_enough() -> None:
    assert await of_run(Elsewhere(Network("none")), allowed_hosts=[])()
