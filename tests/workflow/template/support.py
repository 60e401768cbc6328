"""Makes templates in a folder."""

from pathlib import Path

MANIFEST = """\
description = "A note."
check = "true"
next = ["cat @@name@@.txt"]
[variables.name]
description = "The note's name."
default = "note"
pattern = "[a-z./]+"
[variables.text]
description = "What it says."
default = "hello"
"""


def a_template(folder: Path, name: str = "note", manifest: str = MANIFEST, files: dict[str, str] | None = None) -> Path:
    """In a folder of its own below `folder`."""
    made = folder / name
    (made / "files").mkdir(parents=True)
    (made / "template.toml").write_text(manifest)
    for path, content in (files if files is not None else {"@@name@@.txt": "@@text.json@@\n"}).items():
        file = made / "files" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return made
