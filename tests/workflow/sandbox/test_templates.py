"""What code templates depend on is to be read in every sandbox, wherever the operator keeps it."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.workflow.sandbox.support import Host, new_box
from workflow.sandbox.local import LocalProvider

MODE = "root" if os.geteuid() == 0 else "user"


async def seen_in(host: Host) -> str:
    provider = LocalProvider(host.settings)
    try:
        return await (await new_box(provider)).text("cat /opt/templates/packages; ls /opt 2>&1")
    finally:
        await provider.close()


@pytest.mark.parametrize("inside", ["templates", "another/closed/templates"])
async def test_packages_in_another_folder_that_the_sandbox_user_cannot_enter(inside: str) -> None:
    with tempfile.TemporaryDirectory() as closed:  # 0700
        folder = Path(closed) / inside
        folder.mkdir(parents=True)
        (folder / "packages").write_text("they are here\n")
        folder.parent.chmod(0o700)
        with Host(MODE, {"TRUNKLINE__TEMPLATES__PACKAGES": str(folder)}) as host:
            assert await seen_in(host) == "they are here\ntemplates\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user cannot make what it may not read")
async def test_packages_that_cannot_be_read_cost_no_sandbox() -> None:
    with tempfile.TemporaryDirectory() as closed, Host("user", {"TRUNKLINE__TEMPLATES__PACKAGES": closed}) as host:
        assert "No such file" in await seen_in(host)
        assert f"cannot read {closed}" in host.log.read_text()


async def test_packages_that_are_removed_cost_no_sandbox() -> None:
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "templates"
        folder.mkdir()
        (folder / "packages").write_text("they are here\n")
        with Host(MODE, {"TRUNKLINE__TEMPLATES__PACKAGES": str(folder)}) as host:
            assert "they are here" in await seen_in(host)
            shutil.rmtree(folder)
            assert "No such file" in await seen_in(host)
