"""docs/from-the-source-designs.md: what it says is here is here."""

import re
from pathlib import Path

import pytest
from starlette.routing import Match
from starlette.types import Scope

from gateway.app import create_app
from shared.channels import ChannelEventType
from shared.config.aliases import ALIASES, DATABASE_PARTS, UNUSED_PREFIX
from shared.types import EventType, RunStatus, StepStatus
from tests.gateway.support import settings_for
from tests.support.stack import ROOT
from workflow.tool.registry import built_in_tools

TEXT = (ROOT / "docs" / "from-the-source-designs.md").read_text()
PATHS = sorted(set(re.findall(r"`(GET|POST|PUT|PATCH|DELETE|WS) (/[^` ]*)`", TEXT)))


def rows(section: str) -> list[list[str]]:
    """The cells of the section's table."""
    table = TEXT.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    found = [re.split(r"(?<!\\)\|", line)[1:-1] for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in found[2:]]


def words(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_every_path_that_is_named_is_served(tmp_path: Path) -> None:
    app = create_app(settings_for("redis://127.0.0.1:1", tmp_path))
    assert len(PATHS) > 50
    missing = [f"{method} {path}" for method, path in PATHS if not _served(app.routes, method, path)]
    assert missing == []


def _served(routes: object, method: str, path: str) -> bool:
    plain = re.sub(r"\{\w+\}", "an-id", path).rstrip("/") or "/"
    kind = {"type": "websocket"} if method == "WS" else {"type": "http", "method": method}
    scope: Scope = {**kind, "path": plain, "root_path": "", "headers": []}
    return any(route.matches(scope)[0] is Match.FULL for route in routes)  # type: ignore[attr-defined]


def test_every_setting_stands_for_the_one_that_is_named() -> None:
    for theirs, _, ours in rows("Settings"):
        for name, setting in zip(words(theirs), words(ours) or [""] * 9, strict=False):
            known = name == "config.toml" or name.startswith(UNUSED_PREFIX) or name in DATABASE_PARTS
            assert known or ALIASES[name] == setting, name


@pytest.mark.parametrize(("section", "design"), [("Events", "003"), ("Events", "004"), ("Statuses", "003")])
def test_what_is_the_same_is_spelled_the_same(section: str, design: str) -> None:
    ours: set[str] = {*EventType, *ChannelEventType, *RunStatus, *StepStatus}
    same = [row for row in rows(section) if row[1] == design and row[2].startswith("the same")]
    assert same
    assert {word for row in same for word in words(row[0])} <= ours


def test_the_tools_of_design_001_are_there_under_the_names_that_are_given() -> None:
    [row] = [row for row in rows("Services") if row[0].startswith("`JobPlanTool`")]
    assert len(words(row[0])) == len(words(row[2]))
    assert set(words(row[2])) <= {tool.name for tool in built_in_tools().tools}
