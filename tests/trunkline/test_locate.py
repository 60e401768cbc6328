"""Where the command line finds the server and the key."""

import json
from pathlib import Path

import pytest

from trunkline import ServerNotFound
from trunkline.locate import Server, locate


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The data folder of a running stack."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "gateway.json").write_text(json.dumps({"url": "http://127.0.0.1:8123", "pid": 1}))
    (tmp_path / "key").write_text("tl_local_x\n")
    return tmp_path


def test_a_running_stacks_data_folder_has_both(folder: Path) -> None:
    assert locate(None, None, folder, {}) == Server("http://127.0.0.1:8123", "tl_local_x")
    assert locate(None, None, None, {"TRUNKLINE__DATA": str(folder)}).key == "tl_local_x"


def test_options_go_before_the_environment_and_that_before_the_data_folder(folder: Path) -> None:
    environment = {"TRUNKLINE_URL": "http://env", "TRUNKLINE_API_KEY": "env"}
    assert locate(None, None, folder, environment) == Server("http://env", "env")
    assert locate("http://option", "option", folder, environment) == Server("http://option", "option")


def test_the_data_folders_key_goes_to_this_machine_only(folder: Path) -> None:
    assert locate("http://localhost:9000", None, folder, {}).key == "tl_local_x"
    assert locate("http://example.org", None, folder, {}).key is None


def test_nothing_to_be_found_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ServerNotFound, match="scripts/up"):
        locate(None, None, tmp_path, {})
