"""The client stands alone: as an import, and as a package of its own."""

import subprocess
import sys
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CLIENT = ROOT / "clients" / "python"
OURS = ("gateway", "modem", "workflow", "shared", "scripts", "tests")
SERVICES = ("fastapi", "starlette", "celery", "redis", "litellm", "sqlalchemy", "orjson", "uvicorn", "limits")
TERMINAL = ("typer", "rich", "click")

WITHOUT = """
import importlib.abc, sys

class Without(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[2].split(","):
            raise ModuleNotFoundError(f"{name} is not installed")

sys.meta_path.insert(0, Without())
sys.path.insert(0, sys.argv[1])
"""


def without(packages: tuple[str, ...], code: str, place: Path = ROOT) -> str:
    """What `code` prints in a fresh interpreter that has not these packages, and ours at `place`."""
    command = [sys.executable, "-P", "-c", WITHOUT + code, str(place), ",".join(packages)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=place)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_library_needs_httpx_and_pydantic_only() -> None:
    print_needed = "import trunkline; print(trunkline.Trunkline.__name__, trunkline.AsyncTrunkline.__name__)"
    assert without((*OURS, *SERVICES, *TERMINAL), print_needed) == "Trunkline AsyncTrunkline\n"


def test_the_command_line_needs_nothing_of_the_services() -> None:
    assert without((*OURS, *SERVICES), "from trunkline.cli import app; print(app.info.help)").startswith("Run tasks")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=CLIENT, check=True)
    [made] = folder.glob("*.whl")
    return made


def test_the_package_has_the_client_its_types_and_little_to_install(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        names = [name for name in file.namelist() if ".dist-info/" not in name]
        [metadata] = [message_from_bytes(file.read(name)) for name in file.namelist() if name.endswith("/METADATA")]
    assert {"trunkline/py.typed", "trunkline/sync/client.py", "trunkline/aio/client.py"} <= set(names)
    assert all(name.startswith("trunkline/") for name in names)
    needed = {line.partition(">")[0] for line in metadata.get_all("Requires-Dist", [])}
    assert needed == {"httpx", "pydantic", "rich", "typer"}
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert set(metadata.get_all("Requires-Dist", [])) <= set(whole), "the same versions as the services'"


def test_the_package_works_where_it_is_unpacked(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        file.extractall(tmp_path)
    where = "import trunkline; print(trunkline.__file__)"
    assert Path(without((*OURS, *SERVICES), where, tmp_path).strip()).is_relative_to(tmp_path)
