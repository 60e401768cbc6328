"""What a person is told when the stack is ready."""

import os
import shutil
import sys
import textwrap
from pathlib import Path

from scripts.stack.view import View
from shared.config import Settings, export_env_file
from shared.secrets import mask_secrets
from shared.version import VERSION
from workflow.llm.choose import choose_model

NAME_WIDTH = 7
INDENT = " " * (NAME_WIDTH + 2)
TASK = "Write fizzbuzz.py, run it for 15, and tell me the output"


def banner(view: View, settings: Settings, folder: Path, url: str, link: str) -> str:
    rows = [
        ("model", _model(settings)),
        ("data", str(relative(folder))),
        ("open", link),
        ("try", f'{command("run", folder)} "{TASK}"'),
    ]
    lines = [f"  {view.dim(f'{name:<{NAME_WIDTH}}')}{text}" for name, text in rows]
    return "\n".join(["", f"  {view.bold(f'Trunkline {VERSION}')}", *lines, "", f"Trunkline is ready: {url}"])


def command(name: str, folder: Path) -> str:
    """The command line that reaches the stack on this data folder from here."""
    program = relative(Path(sys.executable).with_name("trunkline"))
    option = "" if relative(folder) == Path("data") else f" --data {relative(folder)}"
    return f"{program} {name}{option}"


def relative(path: Path) -> Path:
    """As seen from the current folder, where it lies in there."""
    absolute = path.absolute()
    return absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute


def _model(settings: Settings) -> str:
    environment = dict(os.environ)
    export_env_file(environment)
    chosen = choose_model(settings.llm, environment)
    if not chosen.how_to_set_a_real_one:
        return mask_secrets(f"{chosen.name} ({chosen.why})")
    width = shutil.get_terminal_size().columns - len(INDENT)
    how = textwrap.wrap(chosen.how_to_set_a_real_one, width, break_long_words=False, break_on_hyphens=False)
    what = "demo: a script that does a small real job with real tools. It is no AI."
    return f"\n  {INDENT[2:]}".join([what, *how])
