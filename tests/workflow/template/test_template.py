"""Templates are checked whole when they are read, and render into file names that are safe."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.workflow.template.support import MANIFEST, a_template
from workflow.template.template import BadVariables, TemplateError, load_template
from workflow.template.templates import load_templates

ROOT = Path(__file__).resolve().parents[3]


def test_a_template_renders_names_and_contents(tmp_path: Path) -> None:
    template = load_template(a_template(tmp_path))
    (file,) = template.render(template.values({"name": "memo", "text": 'say "hi"'}))
    assert (file.path, file.content, file.executable) == ("memo.txt", b'"say \\"hi\\""\n', False)
    assert template.commands(template.values({})) == ["cat note.txt"]


def test_programs_stay_programs_and_what_is_not_text_stays_as_it_is(tmp_path: Path) -> None:
    made = a_template(tmp_path)
    (made / "files" / "run").write_text("#!/bin/sh\n")
    (made / "files" / "run").chmod(0o755)
    (made / "files" / "icon").write_bytes(b"\xff\x00@@name@@")
    template = load_template(made)
    files = {file.path: file for file in template.render(template.values({}))}
    assert files["run"].executable
    assert files["icon"].content == b"\xff\x00@@name@@"


@pytest.mark.parametrize("name", ["../up", "/abs", "a/../../b", ".", "a//b", "./a"])
def test_a_value_makes_no_path_that_leaves_the_folder(tmp_path: Path, name: str) -> None:
    template = load_template(a_template(tmp_path, files={"@@name@@": ""}))
    with pytest.raises(BadVariables, match="is not a file name that is safe"):
        template.render(template.values({"name": name}))


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    template = load_template(a_template(tmp_path, files={"@@name@@.txt": "", "memo.txt": ""}))
    with pytest.raises(BadVariables, match=r"two files would be memo\.txt"):
        template.render(template.values({"name": "memo"}))


def test_all_faults_of_the_variables_are_told_at_once(tmp_path: Path) -> None:
    template = load_template(a_template(tmp_path))
    with pytest.raises(BadVariables) as caught:
        template.values({"name": "UPPER", "text": "a\nb", "colour": "red"})
    assert [fault.split(";")[0] for fault in caught.value.faults] == [
        "note has no variable 'colour'. It has: name, text.",
        "name does not match [a-z./]+",
        "text holds a line break or a control character",
    ]


@pytest.mark.parametrize(
    ("manifest", "files", "fault"),
    [
        ("description = 'x'", None, "check"),
        ("not toml", None, "cannot be read"),
        (MANIFEST + "colour = 'red'\n", None, "colour"),
        (MANIFEST.replace("[a-z./]+", "[a-z"), None, "is no regular expression"),
        (MANIFEST.replace('default = "note"', 'default = "Note"'), None, "with the defaults, name does not match"),
        (MANIFEST, {}, "files/ should hold 1 to 300 files"),
        (MANIFEST, {"a": "@@colour@@"}, "a has the marker @@colour@@, but there is no variable colour"),
        (MANIFEST, {"a": "@@text.yaml@@"}, "the forms are json, html, snake"),
        (MANIFEST, {"a.py": "x = '@@text@@'"}, "any text could come to stand in code"),
        (MANIFEST, {"@@text@@": ""}, "any text could come to stand in code"),
        (MANIFEST.replace("cat @@name@@.txt", "echo @@text@@"), None, "next has @@text@@ without a form"),
        (
            MANIFEST + "[dependencies]\nkind = 'npm'\nlock = 'package-lock.json'\ninstall = 'npm ci'\n",
            None,
            "there is no files/package-lock.json, its lock file",
        ),
    ],
)
def test_a_template_that_is_wrong_is_named_with_its_fault(
    tmp_path: Path, manifest: str, files: dict[str, str] | None, fault: str
) -> None:
    made = a_template(tmp_path, "broken", manifest, files)
    with pytest.raises(TemplateError) as caught:
        load_template(made)
    assert str(made) in caught.value.detail
    assert fault in caught.value.detail


def test_what_a_try_leaves_behind_is_not_part_of_a_template(tmp_path: Path) -> None:
    made = a_template(tmp_path, files={"a.txt": "", "__pycache__/a.pyc": "", "node_modules/b/c": "", ".venv/d": ""})
    assert [source.path for source in load_template(made).sources] == ["a.txt"]


def test_a_lock_or_a_set_up_that_changed_gets_a_folder_of_its_own(tmp_path: Path) -> None:
    manifest = MANIFEST + "[dependencies]\nkind = 'python'\nlock = 'requirements.txt'\ninstall = 'pip'\n"
    names = {
        load_template(a_template(tmp_path / str(n), manifest=manifest, files={"requirements.txt": lock})).installed_name
        for n, lock in enumerate(["a==1", "a==2", "a==2"])
    }
    assert len(names) == 2
    assert all(name and name.startswith("note-") for name in names)


def test_the_operators_templates_stand_beside_the_built_in_ones_and_before_them(tmp_path: Path) -> None:
    a_template(tmp_path)
    a_template(tmp_path, "python-cli")
    templates = load_templates(tmp_path)
    assert templates.names == ["fastapi-service", "note", "python-cli", "static-site", "vite-react"]
    replaced = templates.get("python-cli")
    assert replaced is not None
    assert replaced.manifest.description == "A note."


def test_a_folder_that_holds_no_templates_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match="holds none"):
        load_templates(tmp_path)
    with pytest.raises(TemplateError, match="does not exist"):
        load_templates(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "near"),
    [("vite_react", ["vite-react"]), ("react", ["vite-react"]), ("FastAPI", ["fastapi-service"]), ("rust", [])],
)
def test_a_name_that_is_nearly_right_is_guessed(name: str, near: list[str]) -> None:
    assert load_templates().near(name) == near


def test_locks_pin_every_package_by_hash_and_name_no_address() -> None:
    for template in load_templates():
        for source in template.sources:
            if source.path.startswith("requirements"):
                lines = source.content.decode().split("\n")
                assert sum("==" in line for line in lines) <= sum("--hash=sha256:" in line for line in lines)
                assert "://" not in source.content.decode()
            if source.path == "package-lock.json":
                packages = json.loads(source.content)["packages"]
                assert all("integrity" in entry for path, entry in packages.items() if path)
                assert b'"resolved"' not in source.content


def test_the_built_in_templates_are_in_the_wheel_whole(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path], cwd=ROOT, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    for template in load_templates():
        place = f"workflow/template/catalog/{template.name}"
        assert {f"{place}/files/{source.path}" for source in template.sources} | {f"{place}/template.toml"} <= packed
    assert {"workflow/template/setup/npm.sh", "workflow/template/setup/python.sh"} <= packed
