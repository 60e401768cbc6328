"""What the user wrote, and where: the environment, `.env` and config.toml, each read into the same shape.

A source never stops at its first mistake: it gives what it could read, and the problems beside it.
"""

import difflib
import io
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_origin

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from shared.config.aliases import ALIASES, DATABASE_PARTS, build_database_url, database_part_rules
from shared.config.sections import is_secret, sections, setting_fields
from shared.secrets import MASK, mask_secrets

PREFIX = "TRUNKLINE__"


@dataclass(frozen=True)
class Given:
    """A setting as somebody wrote it: `name` in `source` (`API_PORT`, "environment") is `value`."""

    path: str
    value: object
    name: str
    source: str

    @property
    def written(self) -> str:
        if is_secret(self.path):
            return MASK
        return mask_secrets(json.dumps(self.value, ensure_ascii=False, default=str))


@dataclass(frozen=True)
class Problem:
    """`value` is fit to be shown, or None where showing it could betray a secret."""

    name: str
    source: str
    rule: str
    value: str | None = None


Reading = Iterator[Given | Problem]


def variable_name(path: str) -> str:
    """`api.port` -> `TRUNKLINE__API__PORT`."""
    return PREFIX + path.replace(".", "__").upper()


def toml_name(path: str) -> str:
    """`api.port` -> `[api] port`."""
    section, _, key = path.rpartition(".")
    return f"[{section}] {key}" if section else key


def read_variables(variables: Mapping[str, str], source: str) -> Reading:
    """The weaker name of a setting comes first: DB_*, then an alias, then its own name."""
    yield from _read_database_parts(variables, source)
    for name, path in ALIASES.items():
        if name in variables:
            yield Given(path, _decode(path, variables[name]), name, source)
    for path in setting_fields():
        name = variable_name(path)
        if name in variables:
            yield Given(path, _decode(path, variables[name]), name, source)
    yield from _unknown_variables(variables, source)


def read_env_file(path: Path) -> tuple[dict[str, str], list[Problem]]:
    """The variables of a `.env` file, where there is one; `${NAME}` in a value is replaced."""
    text, problems = read_text(path, required=False)
    for line in parse_stream(io.StringIO(text)):
        if line.error or (line.key is not None and line.value is None):
            problems.append(Problem(f"line {line.original.line}", str(path), "should be NAME=VALUE"))
    values = {} if problems else dotenv_values(stream=io.StringIO(text))
    return {name: value for name, value in values.items() if value is not None}, problems


def read_toml(path: Path, *, required: bool) -> Reading:
    text, problems = read_text(path, required=required)
    yield from problems
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        yield Problem(str(path), "file", f"is not valid TOML: {error}")
        return
    for path_in_file, value in _flatten(document):
        if path_in_file in setting_fields():
            yield Given(path_in_file, value, toml_name(path_in_file), str(path))
        elif path_in_file in sections():
            yield Problem(path_in_file, str(path), f"should be a table: [{path_in_file}]")
        else:
            yield _unknown_key(path_in_file, str(path), is_table=isinstance(value, dict))


def read_text(path: Path, *, required: bool) -> tuple[str, list[Problem]]:
    try:
        return path.read_text(encoding="utf-8-sig"), []
    except FileNotFoundError:
        return "", [Problem(str(path), "file", "does not exist")] if required else []
    except OSError as error:
        return "", [Problem(str(path), "file", f"cannot be read: {error.strerror}")]
    except UnicodeDecodeError:
        return "", [Problem(str(path), "file", "should be UTF-8 text")]


def _read_database_parts(variables: Mapping[str, str], source: str) -> Reading:
    parts = {name: variables[name] for name in DATABASE_PARTS if name in variables}
    wrong = database_part_rules(parts)
    for name, rule in wrong.items():
        yield Problem(name, source, rule, json.dumps(parts[name], ensure_ascii=False))
    if parts and not wrong:
        yield Given("database.url", build_database_url(parts), ", ".join(parts), source)


def _decode(path: str, text: str) -> object:
    """A variable's text; for a list, its items between commas, or JSON; for a table, JSON."""
    kind = get_origin(setting_fields()[path].annotation)
    if kind not in (list, dict):
        return text
    if kind is dict or text.lstrip().startswith("["):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return [item.strip() for item in text.split(",") if item.strip()]


def _unknown_variables(variables: Mapping[str, str], source: str) -> Reading:
    """Also TRUNKLINE_API_PORT and Trunkline__Api__Port: nearly right is the mistake that is hard to see."""
    known = {variable_name(path) for path in setting_fields()}
    by_shape = {_squash(name): name for name in known}
    for name in sorted(variables):
        nearly = by_shape.get(_squash(name))
        if name not in known and (nearly or name.upper().startswith(PREFIX)):
            near_path = _closest(name[len(PREFIX) :].replace("__", ".").lower(), setting_fields())
            guess = nearly or (variable_name(near_path) if near_path else None)
            yield Problem(name, source, "is not a setting" + _did_you_mean(guess))


def _unknown_key(path: str, source: str, *, is_table: bool) -> Problem:
    near = _closest(path, sections() if is_table else setting_fields())
    guess = f"[{near}]" if near and is_table else toml_name(near or "")
    return Problem(toml_name(path), source, "is not a setting" + _did_you_mean(guess))


def _flatten(document: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    for name, value in document.items():
        if isinstance(value, dict) and name not in setting_fields() and value:
            yield from ((f"{name}.{key}", inner) for key, inner in value.items())
        elif not (name in sections() and value == {}):
            yield name, value


def _squash(name: str) -> str:
    return re.sub(r"_+", "_", name.upper())


def _closest(name: str, known: Iterable[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name, sorted(known), n=1)), None)


def _did_you_mean(guess: str | None) -> str:
    return f"; did you mean {guess}?" if guess else ""
