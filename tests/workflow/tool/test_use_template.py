"""Projects from templates: whole or not at all, in a real sandbox."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workflow.sandbox.support import Host
from tests.workflow.template.test_render import HOSTILE
from tests.workflow.tool.support import Caller
from workflow.sandbox.base import Command, ExecResult
from workflow.template.templates import load_templates
from workflow.tool.base import ToolResult
from workflow.tool.use_template import tree

TEMPLATES = load_templates()


async def shell(call: Caller, command: str, seconds: float = 60) -> ExecResult:
    call.calls += 1

    async def unwatched(stream: str, text: str) -> None:
        pass

    key = f"{call.run_id}/shell:{call.calls}"
    return await call.box.exec(Command(key, call.epoch, command, "/workspace", timeout_seconds=seconds), unwatched)


async def files_in(call: Caller, folder: str = "/workspace") -> list[str]:
    return (await shell(call, f"cd {folder} 2>/dev/null && find . -type f | sort")).output.head.split()


@pytest.fixture
def installed(host: Host) -> Iterator[Path]:
    """The packages' folder of python-cli, as if they were installed."""
    template = TEMPLATES.get("python-cli")
    assert template
    assert template.installed_name
    folder = host.settings.template_packages / template.installed_name
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    setup = folder / "setup"
    setup.write_text("#!/bin/sh\necho is set up\n")
    setup.chmod(0o755)
    yield folder
    setup.unlink()
    folder.rmdir()


async def test_a_project_is_written_and_its_own_check_holds(call: Caller) -> None:
    result = await call("use_template", template="static-site", destination="site", variables={"title": "Bees & co"})
    assert result.ok, result.content
    assert result.content.split("\n") == [
        "Wrote the template static-site to /workspace/site, 6 files:",
        ".gitignore",
        "README.md",
        "check.py",
        "site/",
        "  about.html",
        "  index.html",
        "  style.css",
        "Next, in /workspace/site:",
        "- python3 check.py",
        "- python3 -m http.server 8000 --bind 0.0.0.0 --directory site",
        "To check the project: python3 check.py",
    ]
    ((kind, event),) = result.events
    assert (kind, event["template"], event["destination"]) == ("template", "static-site", "/workspace/site")
    assert event["files"][0]["path"] == "/workspace/site/.gitignore"
    checked = await shell(call, f"cd site && {event['check']}")
    assert (checked.exit_code, checked.output.head) == (0, "2 pages, 0 faults\n")
    assert "Bees &amp; co" in (await call.box.read("/workspace/site/site/index.html")).content.decode()


async def test_the_check_of_a_site_finds_what_is_broken(call: Caller) -> None:
    await call("use_template", template="static-site")
    await shell(call, "sed -i 's/about.html#more/abuot.html/; s/<h1>/<h1><b>/' site/index.html")
    checked = await shell(call, "python3 check.py")
    assert checked.exit_code == 1
    assert "abuot.html leads nowhere" in checked.output.head
    assert "closes nothing" in checked.output.head


@pytest.mark.parametrize("title", HOSTILE)
async def test_a_hostile_title_is_text_in_the_project(call: Caller, title: str) -> None:
    result = await call("use_template", template="static-site", variables=[{"name": "title", "value": title}])
    assert result.ok, result.content
    checked = await shell(call, "python3 check.py")
    assert checked.exit_code == 0, checked.output.head


@pytest.mark.parametrize(
    ("variables", "fault"),
    [
        ({"name": "../../etc"}, "name does not match"),
        ({"name": 'x"; rm -rf / #'}, "name does not match"),
        ({"title": "a\nb"}, "title holds a line break"),
        ({"colour": "red"}, "fastapi-service has no variable 'colour'. It has: name, title."),
    ],
)
async def test_variables_that_break_rules_write_nothing(call: Caller, variables: dict[str, str], fault: str) -> None:
    result = await call("use_template", template="fastapi-service", variables=variables)
    assert (result.ok, result.error_code) == (False, "refused")
    assert fault in result.content
    assert await files_in(call) == []


@pytest.mark.parametrize("destination", ["/tmp/app", "..", "/workspace/../etc", "/workspacex", "/workspace/a\nb"])
async def test_a_project_stays_in_the_workspace(call: Caller, destination: str) -> None:
    result = await call("use_template", template="static-site", destination=destination)
    assert result.error_code == "refused", result.content
    assert await files_in(call) == []


async def test_a_link_leads_no_file_out_of_the_project(call: Caller) -> None:
    await shell(call, "mkdir app other && ln -s ../other app/site && ln -s /tmp away")
    result = await call("use_template", template="static-site", destination="app", overwrite=True)
    assert "/workspace/app/site/index.html would go to /workspace/other/index.html" in result.content
    away = await call("use_template", template="static-site", destination="away")
    assert "/workspace/away is a link, and /tmp is not in /workspace" in away.content
    assert await files_in(call) == []


async def test_what_is_there_is_replaced_only_when_asked_and_all_or_nothing(call: Caller) -> None:
    await shell(call, "mkdir site && echo mine > site/index.html && echo other > site/mine.txt")
    refused = await call("use_template", template="static-site")
    assert refused.content == (
        "Nothing was written:\n- /workspace/site/index.html exists. Choose another destination, or set overwrite to "
        "true if it may be replaced."
    )
    assert await files_in(call) == ["./site/index.html", "./site/mine.txt"]
    replaced = await call("use_template", template="static-site", overwrite=True)
    assert replaced.ok
    assert (await shell(call, "head -1 site/index.html; cat site/mine.txt")).output.head == "<!doctype html>\nother\n"


async def test_a_folder_in_a_files_place_leaves_everything_as_it_was(call: Caller) -> None:
    await shell(call, "mkdir -p site/style.css")
    result = await call("use_template", template="static-site", overwrite=True)
    assert (result.ok, result.error_code) == (False, "refused")
    assert "/workspace/site/style.css" in result.content
    assert await files_in(call) == []


async def test_the_same_call_again_finds_its_own_files_in_nobodys_way(call: Caller) -> None:
    first = await call("use_template", template="static-site")
    assert await call("use_template", template="static-site") == first


async def test_a_call_cut_off_by_a_crash_has_the_same_result_and_writes_once(call: Caller) -> None:
    arguments = {"template": "static-site", "destination": "site"}
    first = await call.run("c1", "use_template", **arguments)
    await shell(call, "echo edited > site/README.md")
    assert await call.recover("c1", "use_template", **arguments) == first
    assert (await shell(call, "cat site/README.md")).output.head == "edited\n"
    assert await call.recover("c2", "use_template", **arguments) is None


async def test_the_list_tells_variables_and_what_is_missing(call: Caller, installed: Path) -> None:
    result = await call("use_template", list=True)
    assert result.ok
    assert [entry["name"] for entry in result.data["templates"]] == TEMPLATES.names
    missing = {entry["name"]: entry["missing"] for entry in result.data["templates"]}
    assert missing["static-site"] is None
    assert missing["python-cli"] is None, installed
    assert "scripts/templates fastapi-service" in missing["fastapi-service"]
    assert "scripts/templates vite-react" in missing["vite-react"]
    assert (
        "  language: The language of its pages, as HTML names it. Default: 'en', must match [a-zA-Z]" in result.content
    )
    assert await files_in(call) == []


async def test_packages_that_are_installed_come_read_only_with_a_program_that_sets_them_up(
    call: Caller, installed: Path
) -> None:
    result = await call("use_template", template="python-cli")
    (setup,) = result.data["setup"]
    assert result.data["next"][0] == setup
    assert (await shell(call, setup)).output.head == "is set up\n"
    for attempt in (f"chmod 777 {setup}", "touch /opt/templates/x"):
        assert "Read-only file system" in (await shell(call, attempt)).output.head
    assert list(installed.iterdir()) == [installed / "setup"]
    assert list(installed.parent.iterdir()) == [installed]


async def test_without_its_packages_a_project_is_told_how_to_get_them(call: Caller) -> None:
    result = await call("use_template", template="python-cli", variables={"name": "word-count"})
    assert result.ok
    assert "this sandbox needs a network" in result.content
    assert result.data["next"][0].startswith("python3 -m venv .venv && .venv/bin/pip install")
    assert "./src/word_count/cli.py" in await files_in(call)


@pytest.mark.parametrize(
    ("template", "answer"),
    [
        ("vite", "There is no template 'vite'. Did you mean vite-react? There are: "),
        ("cobol", "There is no template 'cobol'. There are: fastapi-service, python-cli, static-site, vite-react."),
        (None, "Which template? Give its name, or list=true"),
    ],
)
async def test_an_unknown_template_is_answered_with_the_known_ones(
    call: Caller, template: str | None, answer: str
) -> None:
    result: ToolResult = await call("use_template", template=template)
    assert not result.ok
    assert result.content.startswith(answer)


def test_a_tree_names_each_folder_once_and_ends_in_time() -> None:
    assert tree(["a", "b/c/d", "b/c/e", "b/f"]) == ["a", "b/", "  c/", "    d", "    e", "  f"]
    assert tree([f"{n:03}" for n in range(103)])[-1] == "… 3 more files"
