"""The sandbox of a run's thread, and what the run lets it reach."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from shared.errors import AppError, ErrorCode
from shared.types import JSON
from workflow.agent.sandbox import ThreadSandbox
from workflow.sandbox.base import Capabilities, Network
from workflow.sandbox.limits import Limits


class Elsewhere:
    """A sandbox that reaches what the settings say, whatever a run asks for."""

    def __init__(self, network: Network) -> None:
        self.ref = {"provider": "e2b"}
        self.capabilities = Capabilities(network)


class Here(Elsewhere):
    kept_to: Sequence[str] | None = None

    def keep_to(self, hosts: Sequence[str]) -> None:
        self.kept_to = hosts


def of_run(sandbox: Elsewhere, definition: JSON | None = None, **options: Any) -> ThreadSandbox:
    async def acquire(thread_id: str, ref: Any) -> Elsewhere:
        return sandbox

    thread = SimpleNamespace(sandbox=sandbox.ref, sandbox_of="t")
    attempt: Any = SimpleNamespace(thread=thread, run=SimpleNamespace(options=options, definition=definition))
    provider: Any = SimpleNamespace(acquire=acquire)
    return ThreadSandbox(attempt, provider, provider_name="local")


async def test_a_run_keeps_its_sandbox_to_its_hosts() -> None:
    narrowed, open_one = Here(Network("open")), Here(Network("open"))
    await of_run(narrowed, allowed_hosts=[])()
    await of_run(open_one)()
    assert (narrowed.kept_to, open_one.kept_to) == ([], None)


async def test_of_what_an_agent_and_its_run_let_a_sandbox_reach_both_hold() -> None:
    for agent, run, both in (
        (["*.a.test"], ["x.a.test", "b.test"], ["x.a.test"]),
        (["x.a.test"], ["*.a.test"], ["x.a.test"]),
        ([], ["a.test"], []),
        (["a.test"], None, ["a.test"]),
    ):
        sandbox = Here(Network("open"))
        await of_run(sandbox, {"allowed_hosts": agent}, **({} if run is None else {"allowed_hosts": run}))()
        assert sandbox.kept_to == both


async def test_an_agent_that_wants_another_provider_gets_no_sandbox() -> None:
    with pytest.raises(AppError, match="wants a sandbox of e2b") as refused:
        await of_run(Here(Network("none")), {"sandbox_provider": "e2b"})()
    assert refused.value.code is ErrorCode.UNSUPPORTED
    assert await of_run(Here(Network("none")), {"sandbox_provider": "local"})()


@pytest.mark.parametrize(("policy", "hosts"), [("open", []), ("allow", ["a.test"]), ("none", ["a.test"])])
async def test_a_sandbox_that_cannot_be_narrowed_is_not_given_out(policy: Any, hosts: list[str]) -> None:
    with pytest.raises(AppError, match="for local sandboxes") as refused:
        await of_run(Elsewhere(Network(policy)), allowed_hosts=hosts)()
    assert refused.value.code is ErrorCode.UNSUPPORTED


async def test_an_agents_limits_are_the_sandboxs_where_it_takes_some() -> None:
    class Limitable(Here):
        limited: Limits | None = None

        def limit(self, limits: Limits) -> None:
            self.limited = limits

    sandbox = Limitable(Network("none"))
    await of_run(sandbox, {"sandbox_limits": {"processes": 64}})()
    assert sandbox.limited == Limits(processes=64)
    with pytest.raises(AppError, match="for local sandboxes"):
        await of_run(Elsewhere(Network("none")), {"sandbox_limits": {"processes": 64}})()


async def test_one_without_a_network_is_narrow_enough() -> None:
    assert await of_run(Elsewhere(Network("none")), allowed_hosts=[])()
