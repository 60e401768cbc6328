"""A sandbox beside one that behaves badly goes on working; by how much slower is printed (scripts/bench)."""

import os

import pytest

from scripts.benchmark.neighbours import ATTACKS, SMALL, measure_neighbours
from tests.workflow.sandbox.support import Host

HOPELESS_MS = 20_000  # they take some ms; other tests may run beside it


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["root", "user"])
async def test_no_attack_in_a_sandbox_fails_the_commands_of_its_neighbour(mode: str) -> None:
    if mode == "root" and os.geteuid() != 0:
        pytest.skip("only root can start the host as root")
    with Host(mode, **SMALL) as host:
        found = [slowdown async for slowdown in measure_neighbours(host.settings)]
        print((host.health() or {})["limits"], *found, sep="\n")
    assert [slowdown.attack for slowdown in found] == list(ATTACKS)
    assert max(slowdown.beside.p95 for slowdown in found) < HOPELESS_MS
