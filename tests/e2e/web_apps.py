"""Two web apps, each as the calls of tools by which an agent makes it: from its plan to the link to its page."""

import json
from typing import Any

from workflow.template.templates import load_templates

Script = list[tuple[str, dict[str, Any]]]

PORT = 8000
INDEX, ABOUT, STYLE = (f"counter/site/{name}" for name in ("index.html", "about.html", "style.css"))
COUNTER = """\
      <p>Counted: <output>0</output></p>
      <button onclick="document.querySelector('output').value++">Count</button>
"""
WELCOME = '      <p>Welcome. There is more <a href="about.html#more">about this site</a>.</p>\n'

MAIN, NOTES, TESTS = (f"notes/{name}" for name in ("app/main.py", "app/notes.py", "tests/test_notes.py"))
PAGE = '''

PAGE = """<!doctype html>
<title>Notes</title>
<form><input name="text" aria-label="Note"><button>Add</button></form>
<ul></ul>
<script>
  async function show() {
    const notes = await (await fetch("/notes")).json();
    document.querySelector("ul").replaceChildren(...notes.map((note) => {
      const item = document.createElement("li");
      item.textContent = note.id + ": " + note.text;
      return item;
    }));
  }
  document.querySelector("form").onsubmit = async (event) => {
    event.preventDefault();
    const body = JSON.stringify({ text: event.target.text.value });
    await fetch("/notes", { method: "POST", body, headers: { "Content-Type": "application/json" } });
    await show();
  };
</script>"""
'''
ROUTE = """\
    @app.get("/", response_class=HTMLResponse)
    async def page() -> str:
        return PAGE

    return app
"""
TEST = """\
def test_there_is_a_page() -> None:
    answer = with_client(lambda client: client.get("/"))
    assert "<title>Notes</title>" in answer.text


def test_a_note_is_short() -> None:
    assert with_client(lambda client: client.post("/notes", json={"text": "x" * 81})).status_code == 422


def test_it_is_healthy()"""


def static_site() -> Script:
    """Needs nothing but Python."""
    edits = [
        edit(INDEX, WELCOME, COUNTER),
        edit(ABOUT, "What this site is about.", "It counts your clicks."),
        edit(STYLE, "max-width: 40rem;", "max-width: 40rem;\n  color: rgb(0, 90, 60);"),
    ]
    return [
        plan("A page that counts clicks"),
        ("use_template", {"template": "static-site", "destination": "counter", "variables": {"title": "Counter"}}),
        ("multi_edit", {"edits": edits}),
        ("grep", {"pattern": "[Cc]ount", "path": "counter/site", "output_mode": "content"}),
        *checked("counter", "python3 check.py"),
        *served("counter", f"python3 -m http.server {PORT} --bind 0.0.0.0 --directory site", "/index.html"),
    ]


def service() -> Script:
    """Needs the template's packages in the sandbox."""
    template = load_templates().get("fastapi-service")
    assert template
    edits = [
        edit(
            MAIN,
            "from fastapi import FastAPI\n",
            "from fastapi import FastAPI\nfrom fastapi.responses import HTMLResponse\n",
        ),
        edit(MAIN, '\nTITLE = "Notes"\n', f'\nTITLE = "Notes"\n{PAGE}'),
        edit(MAIN, "    return app\n", ROUTE),
        edit(NOTES, "max_length=1000", "max_length=80"),
        edit(TESTS, "def test_it_is_healthy()", TEST),
    ]
    return [
        plan("Notes with a page"),
        ("use_template", {"template": template.name, "destination": "notes", "variables": {"title": "Notes"}}),
        ("bash", {"command": f"/opt/templates/{template.installed_name}/setup", "workdir": "notes"}),
        ("multi_edit", {"edits": edits}),
        ("grep", {"pattern": "max_length", "path": "notes/app", "output_mode": "content"}),
        *checked("notes", ".venv/bin/python -m pytest -q"),
        *served("notes", f".venv/bin/python -m uvicorn app.main:app --host 0.0.0.0 --port {PORT}", "/"),
    ]


def edit(path: str, old: str, new: str) -> dict[str, str]:
    return {"file_path": path, "old_string": old, "new_string": new}


def plan(title: str) -> tuple[str, dict[str, Any]]:
    return "job_plan", {"title": title, "steps": [{"title": step} for step in ("Start", "Edit", "Check", "Show")]}


def checked(folder: str, command: str) -> Script:
    return [
        ("bash", {"command": command, "workdir": folder, "run_in_background": True}),
        ("bash_output", {"task_id": "bg_1", "block": True, "timeout_ms": 120_000}),
    ]


def served(folder: str, command: str, path: str) -> Script:
    """The agent asks for the link too early once."""
    return [
        ("expose_port", {"port": PORT, "wait_timeout_s": 0}),
        ("bash", {"command": command, "workdir": folder, "run_in_background": True}),
        ("expose_port", {"port": PORT, "path": path, "label": "the app"}),
    ]


def task_of(script: Script) -> str:
    """By which the scripted model makes these calls."""
    return "".join(f"[[tool:{name} {json.dumps(arguments)}]]" for name, arguments in script)
