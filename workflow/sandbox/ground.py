"""What this machine offers for sandboxes to stand on: found, and tried out, before anybody gets one."""

import logging
import os
import shutil
from pathlib import Path

from shared.config import SandboxSettings
from workflow.sandbox import bwrap, seccomp
from workflow.sandbox.base import SandboxUnavailable
from workflow.sandbox.cgroups import Groups
from workflow.sandbox.egress import ENVIRONMENT, Egress
from workflow.sandbox.inside import Ground
from workflow.sandbox.probe import probe
from workflow.sandbox.usage import disk_usage

log = logging.getLogger("trunkline.sandbox")

PROGRAM_PATH = "/usr/local/bin:/usr/bin:/bin"
TIERS = {
    "A": "tier A: memory by cgroup v2",
    "B": "tier B: memory by cgroup v1",
    "C": "tier C: memory by a watchdog, because there is no control group to be had",
}
PROCESSORS = {True: "shares of the processors by it too", False: "shares of the processors by priority"}
COMMON_LIMITS = "processes, open files, file size and processor time by rlimits; disk by a watchdog"


async def find_ground(
    settings: SandboxSettings, archive: bytes, groups: Groups | None, probe_folder: Path, templates: Path | None = None
) -> Ground:
    """The best that holds in a trial; to be called as the user who will start the sandboxes. Raises SandboxUnavailable.

    Control groups that turn out not to work are no reason to have no sandboxes.
    """
    if templates and not os.access(templates, os.R_OK | os.X_OK):
        log.warning("Sandboxes go without templates' packages: uid %s cannot read %s", os.getuid(), templates)
        templates = None
    problem, egress = None, Egress.of(settings)
    for tier in dict.fromkeys((groups, None)):
        ground = Ground(settings, _profile(settings, archive, tier, templates), tier, egress)
        problem = await probe(ground, probe_folder)
        if problem is None:
            await _check_disk_tools(ground, probe_folder)
            return ground
        log.warning("%s", problem)
    raise SandboxUnavailable(str(problem))


async def _check_disk_tools(ground: Ground, folder: Path) -> None:
    try:
        await disk_usage(bwrap.disk_usage_command(ground.profile, folder))
    except OSError as error:
        raise SandboxUnavailable(
            f"Sandboxes are unavailable: their disk space could not be limited ({error}). Install GNU coreutils."
        ) from error


def describe_limits(ground: Ground) -> str:
    groups = ground.groups
    shares = PROCESSORS[groups is not None and groups.share_processors]
    return f"{TIERS[groups.tier if groups else 'C']}; {shares}; {COMMON_LIMITS}"


def _profile(settings: SandboxSettings, archive: bytes, groups: Groups | None, templates: Path | None) -> bwrap.Profile:
    program = shutil.which("bwrap", path=PROGRAM_PATH)
    python = bwrap.find_python()
    if program is None:
        raise SandboxUnavailable(bwrap.explain("No such file or directory: '/usr/bin/bwrap'"))
    if python is None:
        raise SandboxUnavailable(bwrap.explain("execvp python3"))
    try:
        refused = seccomp.build_filter(refuse_uncounted_memory=groups is None)
    except KeyError as error:
        raise SandboxUnavailable(f"Sandboxes are unavailable: there is no filter for {error} processors.") from error
    start, memory = bwrap.shell_start(settings), settings.memory_bytes
    environment = ENVIRONMENT if settings.network != "none" else {}
    return bwrap.Profile(program, *python, archive, start, refused, memory, templates, environment)
