"""`python -m scripts.docs_config` writes config.toml and the tables of docs/configuration.md from the settings."""

import json
import textwrap
from collections.abc import Iterable
from pathlib import Path

from pydantic.fields import FieldInfo

from shared.config.aliases import ALIASES, DATABASE_PARTS, UNUSED_PREFIX, UNUSED_REASON
from shared.config.sections import sections, setting_fields
from shared.config.sources import toml_name, variable_name

ROOT = Path(__file__).parent.parent
CONFIG, DOCS = ROOT / "config.toml", ROOT / "docs" / "configuration.md"
START, END = "<!-- made by scripts/docs_config.py: settings -->", "<!-- end of settings -->"

HEADER = """\
# Trunkline's settings. Every key stands here with its default, commented out: uncomment what you change.
# Stronger than this file: the environment, then .env, where `[api] port` is called TRUNKLINE__API__PORT.
# `.venv/bin/python -m shared.config` checks everything and prints what is in force. See docs/configuration.md.
"""


def config_toml() -> str:
    lines = [HEADER]
    lines += [_toml_key(path) for path in setting_fields() if "." not in path]
    for section, model in sections().items():
        lines.append(f"[{section}]  # {model.__doc__}\n")
        lines += [_toml_key(path) for path in setting_fields() if path.startswith(f"{section}.")]
    return "\n".join(lines)


def tables() -> str:
    """Markdown: one table of keys for each section, then the aliases."""
    parts = ["### Without a section\n", _table(path for path in setting_fields() if "." not in path)]
    for section, model in sections().items():
        parts.append(f"### `[{section}]`\n\n{model.__doc__}\n")
        parts.append(_table(path for path in setting_fields() if path.startswith(f"{section}.")))
    return "\n".join([*parts, "### Other names\n", _alias_table()])


def document(text: str) -> str:
    """docs/configuration.md, `text`, with fresh tables."""
    before, rest = text.split(START)
    return f"{before}{START}\n\n{tables()}\n{END}{rest.split(END)[1]}"


def _toml_key(path: str) -> str:
    field, key = setting_fields()[path], path.rpartition(".")[2]
    meaning = textwrap.fill(str(field.description), 110, initial_indent="# ", subsequent_indent="# ")
    if field.default is None:
        return f"{meaning}\n#{key} = {_value(field.examples[0] if field.examples else None)}  # for example\n"
    return f"{meaning}\n#{key} = {_value(field.default)}\n"


def _table(paths: Iterable[str]) -> str:
    rows = [f"| `{path.rpartition('.')[2]}` | {_default(setting_fields()[path])} | {_cell(path)} |" for path in paths]
    return "\n".join(["| key | default | meaning |", "|---|---|---|", *rows, ""])


def _alias_table() -> str:
    rows = [f"| `{name}` | `{toml_name(path)}` | `{variable_name(path)}` |" for name, path in ALIASES.items()]
    parts = ", ".join(f"`{name}` ({value})" for name, value in DATABASE_PARTS.items())
    rows.append(f"| {parts} | `[database] url`, made of them together | `{variable_name('database.url')}` |")
    rows.append(f"| `{UNUSED_PREFIX}*` | none: a warning, because {UNUSED_REASON} | |")
    return "\n".join(["| variable | setting | its own variable |", "|---|---|---|", *rows, ""])


def _default(field: FieldInfo) -> str:
    return "" if field.default is None else f"`{_value(field.default)}`"


def _cell(path: str) -> str:
    return str(setting_fields()[path].description).replace("|", "\\|")


def _value(value: object) -> str:
    return json.dumps(value, default=str)


if __name__ == "__main__":
    CONFIG.write_text(config_toml())
    DOCS.write_text(document(DOCS.read_text()))
