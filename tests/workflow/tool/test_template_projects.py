"""Each built-in template with packages: rendered by the tool, its own check run where there is no network."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workflow.sandbox.support import Host
from tests.workflow.tool.support import Caller
from tests.workflow.tool.test_use_template import TEMPLATES, shell
from workflow.template.install import install, write_default

REGISTRY_SECONDS = 60
TITLE = 'Ada\'s "tools" & {braces} <b> \\ 100 %'
PROJECTS = {
    "fastapi-service": {"name": "orders-api", "title": TITLE},
    "python-cli": {"name": "json", "summary": TITLE},
    "vite-react": {"name": "todo-list", "title": TITLE},
}


@pytest.fixture(scope="module")
def packages(host: Host) -> Iterator[Path]:
    """All templates' packages, installed as scripts/templates does it."""
    for command in (["npm", "view", "react", "version"], [sys.executable, "-m", "pip", "index", "versions", "pytest"]):
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=REGISTRY_SECONDS)
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"no package registry within reach: {error}")
    for template in TEMPLATES:
        install(template, host.settings.template_packages)
    yield host.settings.template_packages
    shutil.rmtree(host.settings.template_packages)


@pytest.mark.slow
@pytest.mark.parametrize("name", PROJECTS)
async def test_a_rendered_project_passes_its_own_check_without_a_network(
    call: Caller, packages: Path, name: str
) -> None:
    result = await call("use_template", template=name, destination="my project", variables=PROJECTS[name])
    assert result.ok, result.content
    (setup,) = result.data["setup"]
    assert setup.startswith("/opt/templates/"), packages
    checked = await shell(call, f"cd 'my project' && {setup} && {result.data['check']}", 300)
    assert checked.exit_code == 0, checked.output.head + checked.output.tail
    assert "passed" in checked.output.head


@pytest.mark.slow
@pytest.mark.parametrize("name", PROJECTS)
async def test_the_check_of_a_project_fails_when_its_code_does(call: Caller, packages: Path, name: str) -> None:
    result = await call("use_template", template=name, destination="app", variables=PROJECTS[name])
    (setup,) = result.data["setup"]
    broken = {"fastapi-service": "app/notes.py", "python-cli": "src/json_/commands.py", "vite-react": "src/App.tsx"}[
        name
    ]
    checked = await shell(
        call, f"cd app && {setup} && sed -i 's/count/nothing/' {broken} && {result.data['check']}", 300
    )
    assert checked.exit_code not in (0, None), checked.output.head


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fastapi-service", "python-cli", "static-site"])
def test_python_in_a_project_is_formatted_and_typed(tmp_path: Path, name: str) -> None:
    template = TEMPLATES.get(name)
    assert template
    write_default(template, tmp_path)
    for tool in ("ruff format --check", "ruff check --select E,F,I,UP,B", "mypy --strict --config-file="):
        program, *arguments = tool.split()
        command = [str(Path(sys.executable).with_name(program)), *arguments, "."]
        environment = os.environ | {"MYPYPATH": str(tmp_path / "src")}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
async def test_the_development_server_of_a_web_app_answers_to_the_hosts_of_exposed_ports(
    call: Caller, packages: Path
) -> None:
    result = await call("use_template", template="vite-react", variables=PROJECTS["vite-react"])
    (setup,) = result.data["setup"]
    script = f"""
    {setup} >/dev/null
    npm run dev >dev.log 2>&1 &
    for try in $(seq 300); do curl -so /dev/null http://127.0.0.1:5173/ && break; sleep 0.1; done
    for host in 5173-abc.localhost evil.example; do
        curl -so page -w '%{{http_code}}\\n' -H "Host: $host" http://127.0.0.1:5173/src/main.tsx; done
    curl -s http://127.0.0.1:5173/ | grep -c '&lt;b&gt;'
    curl -s http://127.0.0.1:5173/node_modules/.vite/deps/react.js | grep -c export
    kill %1
    """
    ran = await shell(call, script, 120)
    assert ran.output.head.split() == ["200", "403", "1", "1"], ran.output.head
