"""Tier A by the files that it writes (the machines of our tests have no cgroup v2 memory controller to delegate), and
whatever real groups there are by what they leave behind."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.config import SandboxSettings
from workflow.sandbox import cgroups
from workflow.sandbox.base import SandboxUnavailable
from workflow.sandbox.bwrap import Profile
from workflow.sandbox.inside import Ground, start

MIB = 1024**2
LIMIT_FILES = ("memory.max", "memory.limit_in_bytes")


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
    assert (groups.folder / "cgroup.subtree_control").read_text() == "+cpu +memory"
    assert groups.share_processors
    group = groups.create("sandbox", 128 * MIB)
    assert (group.folder / "memory.max").read_text() == str(128 * MIB)
    group.admit([17])
    assert (group.folder / "cgroup.procs").read_text() == "17"
    (group.folder / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")
    assert group.kills() == 2


def test_a_group_left_over_from_a_sandbox_before_is_in_nobodys_way(mount: Path) -> None:
    groups = cgroups.prepare(os.getuid())
    assert groups
    groups.create("sandbox", 128 * MIB)
    again = groups.create("sandbox", 256 * MIB)
    assert (again.folder / "memory.max").read_text() == str(256 * MIB)


def test_processes_killed_in_a_group_left_over_are_not_the_new_ones(mount: Path) -> None:
    groups = cgroups.prepare(os.getuid())
    assert groups
    events = groups.create("sandbox", 128 * MIB).folder / "memory.events"
    events.write_text("oom_kill 2\n")
    again = groups.create("sandbox", 128 * MIB)
    assert again.kills() == 0
    events.write_text("oom_kill 3\n")
    assert again.kills() == 1


@pytest.fixture
def groups() -> Iterator[cgroups.Groups]:
    """Real ones."""
    groups = cgroups.prepare(os.getuid())
    if groups is None:
        pytest.skip("this machine has no control groups for us")
    yield groups
    for folder in filter(None, (groups.folder, groups.processors)):
        cgroups.sweep(folder)
        assert not folder.exists()


def test_a_group_that_the_kernel_does_not_limit_is_not_left_over(groups: cgroups.Groups) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        groups.create("sandbox", -2)
    assert not (groups.folder / "sandbox").exists()
    assert not (groups.processors and (groups.processors / "sandbox").exists())


async def test_a_sandbox_that_cannot_be_started_leaves_no_group(groups: cgroups.Groups, tmp_path: Path) -> None:
    profile = Profile("/nowhere/bwrap", "python3", (), b"", b"", b"", 128 * MIB)
    with pytest.raises(SandboxUnavailable, match="bubblewrap is not installed"):
        await start(Ground(SandboxSettings(), profile, groups), tmp_path, "sandbox")
    assert not (groups.folder / "sandbox").exists()


def test_a_real_group_can_be_made_again(groups: cgroups.Groups) -> None:
    for size in (128 * MIB, 64 * MIB):
        limits = groups.create("sandbox", size).folder.glob("memory.[lm]*")
        assert str(size) in {path.read_text().strip() for path in limits if path.name in LIMIT_FILES}


def test_processors_that_are_not_delegated_are_shared_out_otherwise(mount: Path) -> None:
    (mount / "user.slice/app.slice/cgroup.subtree_control").write_text("memory pids\n")
    groups = cgroups.prepare(os.getuid())
    assert groups
    assert not groups.share_processors
    assert (groups.folder / "cgroup.subtree_control").read_text() == "+memory"


def test_a_group_of_somebody_else_or_without_the_controller_is_left_alone(mount: Path) -> None:
    assert cgroups.prepare(os.getuid() + 1) is None
    (mount / "user.slice/app.slice/cgroup.subtree_control").write_text("cpu pids\n")
    assert cgroups.prepare(os.getuid()) is None
    assert [path.name for path in (mount / "user.slice/app.slice").iterdir() if path.is_dir()] == ["terminal.scope"]
