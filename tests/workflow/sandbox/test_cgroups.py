"""Tier A by the files that it writes (the machines of our tests have no cgroup v2 memory controller to delegate)."""

import os
from pathlib import Path

import pytest

from workflow.sandbox import cgroups

MIB = 1024**2


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree that looks like that of a user's session, where systemd has delegated app.slice."""
    monkeypatch.setattr(cgroups, "MOUNT", tmp_path)
    monkeypatch.setattr(cgroups, "_own_groups", lambda: {"": "user.slice/app.slice/terminal.scope"})
    (tmp_path / "user.slice/app.slice/terminal.scope").mkdir(parents=True)
    (tmp_path / "user.slice/app.slice/cgroup.subtree_control").write_text("cpu memory pids\n")
    return tmp_path


def test_a_delegated_group_limits_memory_and_swap(mount: Path) -> None:
    groups = cgroups.prepare(os.getuid())
    assert groups
    assert (groups.tier, groups.folder.parent) == ("A", mount / "user.slice/app.slice")
    assert (groups.folder / "cgroup.subtree_control").read_text() == "+memory"
    group = groups.create("sandbox", 128 * MIB)
    assert (group.folder / "memory.max").read_text() == str(128 * MIB)
    group.admit([17])
    assert (group.folder / "cgroup.procs").read_text() == "17"
    (group.folder / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")
    assert group.kills() == 2


def test_a_group_of_somebody_else_or_without_the_controller_is_left_alone(mount: Path) -> None:
    assert cgroups.prepare(os.getuid() + 1) is None
    (mount / "user.slice/app.slice/cgroup.subtree_control").write_text("cpu pids\n")
    assert cgroups.prepare(os.getuid()) is None
    assert [path.name for path in (mount / "user.slice/app.slice").iterdir() if path.is_dir()] == ["terminal.scope"]
