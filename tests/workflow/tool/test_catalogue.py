"""Tools of the user's own: found in modules and packages, checked, enabled, or refused with the cure."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.config import Settings, ToolsSettings
from shared.errors import AppError
from workflow.tool.catalogue import all_tools
from workflow.tool.registry import Registry

HEAD = """
from typing import Any, Literal
from workflow.tool.base import Args, Effect, Tool, ToolContext, ToolResult
"""
TOOL = """
class CountArgs(Args):
    text: str

class CountTool(Tool[CountArgs]):
    name = "count"
    effect = Effect.REPEATABLE
    description = "Counts words."
    Args = CountArgs

    async def run(self, args: CountArgs, ctx: ToolContext) -> ToolResult:
        return ToolResult(True, str(len(args.text.split())))
"""
Write = Callable[[str], str]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes a module of the user's; gives its name."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def write(text: str) -> str:
        (tmp_path / "own_tools.py").write_text(HEAD + text)
        return "own_tools"

    yield write
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]


def found(module: str, **tools: Any) -> Registry:
    return all_tools(Settings(tools=ToolsSettings(modules=[module], **tools)))


def test_a_tool_of_the_users_is_given_where_it_is_enabled(module: Write) -> None:
    name = module(TOOL)
    assert found(name, enabled=["default", "count"]).names[-1] == "count"
    assert "bash" in found(name, enabled=["default", "count"]).names
    assert found(name, enabled=["cou*"]).names == ["count"]
    assert "count" not in found(name).names


def test_disabled_wins() -> None:
    names = all_tools(Settings(tools=ToolsSettings(disabled=["bash*", "ls"]))).names
    assert "read_file" in names
    assert not {"bash", "bash_output", "ls"} & set(names)


@pytest.mark.parametrize(
    ("change", "cure"),
    [
        (("Counts words.", ""), "has a description of 0 characters: write"),
        (("Counts words.", "x" * 1_025), "at most 1,024"),
        (('    description = "Counts words."\n', ""), r"has no description: write .* into .*count\.md"),
        (('"count"', '"count words"'), "has the name 'count words'. Use letters"),
        (('"count"', '"bash"'), r"two tools named 'bash': workflow.tool.bash.BashTool and own_tools.CountTool. Rename"),
        (("Effect.REPEATABLE", "'maybe'"), "has the effect 'maybe'. Give it one of Effect"),
        (('    name = "count"\n', ""), "CountTool lacks name"),
        (("    async def run", "    def run"), "run that is not async. Write: async def run"),
        (("text: str", "text: str | int"), r"'Text' may be of several types; .*derived from Args"),
        (("text: str", "text: Any"), "'Text' has no single JSON type"),
        (("text: str", "text: dict[str, str]"), "'Text' is an object without named fields"),
        (("class CountTool", "    text2: 'CountArgs'\n\nclass CountTool"), "not every model can be told of"),
        (("    Args = CountArgs\n", "    Args = CountArgs\n    def __init__(self, x): ...\n"), "without arguments"),
        (("(Tool[CountArgs])", ""), "has no class derived from Tool that is complete"),
        (("class CountArgs", "import nowhere_to_be_found\nclass CountArgs"), "cannot be imported: No module named"),
    ],
)
def test_what_is_wrong_with_a_tool_is_told_with_its_cure(module: Write, change: tuple[str, str], cure: str) -> None:
    text = TOOL.replace(*change)
    assert text != TOOL
    with pytest.raises(AppError, match=cure):
        found(module(text), enabled=["default"])


def test_an_enabled_tool_that_is_not_there_is_told() -> None:
    with pytest.raises(AppError, match=r"tools\.enabled names cuont, and there is no such tool\. There are: bash, "):
        all_tools(Settings(tools=ToolsSettings(enabled=["default", "cuont", "mcp__x__*"])))


@pytest.mark.parametrize("value", ["own_tools:CountTool", "own_tools", "own_tools:nothing", "own_tools:HEAD"])
def test_an_installed_package_brings_tools_by_its_entry_point(module: Write, tmp_path: Path, value: str) -> None:
    module(TOOL + "HEAD = 1\n")
    info = tmp_path / "own-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[trunkline.tools]\ncount = {value}\n")
    settings = Settings(tools=ToolsSettings(enabled=["count"]))
    if value.endswith(("Tool", "own_tools")):
        assert all_tools(settings).names == ["count"]
    else:
        with pytest.raises(AppError, match=r"The entry point 'count' of trunkline\.tools"):
            all_tools(settings)
