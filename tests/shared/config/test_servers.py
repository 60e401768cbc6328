"""MCP servers and private hosts in the settings."""

import json
from pathlib import Path

import pytest

from shared.config.__main__ import show
from shared.config.load import load, load_settings
from shared.errors import AppError

TOML = """
[mcp]
call_seconds = 5
[mcp.servers.files]
command = "files-server"
args = ["--root", "/srv"]
env = { TOKEN = "hunter2-of-files" }
[mcp.servers.tickets]
url = "https://tickets.example.com/mcp/"
headers = { Authorization = "hunter2-of-tickets" }
"""


def test_servers_are_tables_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(TOML)
    loaded = load({}, tmp_path)
    servers = loaded.settings.mcp.servers
    assert servers["files"].args == ["--root", "/srv"]
    assert servers["files"].env["TOKEN"].get_secret_value() == "hunter2-of-files"
    assert servers["tickets"].url == "https://tickets.example.com/mcp"
    assert "hunter2" not in show(loaded)


def test_servers_can_be_given_as_json_in_a_variable(tmp_path: Path) -> None:
    settings = load_settings({"TRUNKLINE__MCP__SERVERS": json.dumps({"a": {"command": "x"}})}, tmp_path)
    assert settings.mcp.servers["a"].command == "x"


@pytest.mark.parametrize(
    ("servers", "why"),
    [
        ('{"a": {}}', "a should have either a command or an url"),
        ('{"a": {"command": "x", "url": "http://h/"}}', "a should have either a command or an url"),
        ('{"a": {"url": "ftp://hunter2/"}}', "a.url should be an URL"),
        ('{"a": {"command": "x", "comand": "hunter2"}}', "a.comand "),
        ('{"a b": {"command": "x"}}', "a b.[key] "),
        ('{"a__b": {"command": "x"}}', "a__b.[key] should be 1 to 32 of a-z, A-Z, 0-9, _ and -, without __"),
        ('{"a_": {"command": "x"}}', "a_.[key] should be 1 to 32 of"),
        ("not json", "should be a valid dictionary"),
    ],
)
def test_a_wrong_server_is_named_and_its_secrets_are_not(tmp_path: Path, servers: str, why: str) -> None:
    with pytest.raises(AppError) as error:
        load_settings({"TRUNKLINE__MCP__SERVERS": servers}, tmp_path)
    assert why in error.value.detail
    assert "hunter2" not in error.value.detail


@pytest.mark.parametrize("host", ["http://h", "h/path", "u@h", "h:0", "h:99999", "", "a b:1", "h?x"])
def test_a_private_host_is_a_host_or_a_host_and_a_port(tmp_path: Path, host: str) -> None:
    good = load_settings({"TRUNKLINE__NET__PRIVATE_HOSTS": "h,h:80,10.0.0.1,[fd00::1]:9"}, tmp_path)
    assert good.net.private_hosts == ["h", "h:80", "10.0.0.1", "[fd00::1]:9"]
    with pytest.raises(AppError, match="item 1 should be"):
        load_settings({"TRUNKLINE__NET__PRIVATE_HOSTS": json.dumps([host])}, tmp_path)
