"""`trunkline keys`, against a scripted server."""

import json

from typer.testing import CliRunner, Result

from tests.trunkline.server import Answer, as_json, serving
from trunkline.cli import app

KEY = {"id": "k1", "name": "ci", "prefix": "tl_06f3", "scopes": ["read", "run"], "last_used_at": "2026-11-21T05:00:00Z"}


def keys(url: str, *arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, ["keys", *arguments, "--url", url, "--key", "admin"])


def test_keys_are_listed_made_and_revoked() -> None:
    page = as_json({"items": [KEY], "next_cursor": None})
    with serving(page, as_json({**KEY, "key": "tl_06f3secret"}, 201), Answer(204)) as (url, asked):
        listed, made, revoked = (
            keys(url, "list"),
            keys(url, "create", "ci", "--scope", "run"),
            keys(url, "revoke", "k1"),
        )
    assert listed.stdout.splitlines()[1].split() == ["k1", "ci", "tl_06f3", "read", "run", "2026-11-21", "05:00:00"]
    assert json.loads(made.stdout)["key"] == "tl_06f3secret"
    assert (revoked.exit_code, revoked.stdout) == (0, "")
    assert [(request.method, request.path) for request in asked[1:]] == [
        ("POST", "/api/keys"),
        ("DELETE", "/api/keys/k1"),
    ]
    assert asked[1].body == {"name": "ci", "scopes": ["run"]}


def test_where_there_are_none_that_is_said() -> None:
    with serving(as_json({"items": [], "next_cursor": None})) as (url, _):
        assert keys(url, "list").stdout == "No keys.\n"
