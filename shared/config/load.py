"""Settings from all sources, or one error that names everything wrong."""

import logging
import os
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from shared.config.aliases import DATABASE_PARTS, UNUSED_PREFIX, UNUSED_REASON
from shared.config.rules import Rule
from shared.config.sections import Settings, setting_fields
from shared.config.sources import Given, Problem, read_env_file, read_toml, read_variables
from shared.errors import AppError, ErrorCode, FieldError

log = logging.getLogger("trunkline.config")

CONFIG_VARIABLE = "TRUNKLINE_CONFIG"


@dataclass(frozen=True)
class Loaded:
    """`given`: the settings that somebody set, by path; the rest are defaults."""

    settings: Settings
    given: dict[str, Given]


def load_settings(environ: Mapping[str, str] | None = None, folder: Path | None = None) -> Settings:
    """Settings from the environment, then `.env`, then config.toml, then the defaults; the first that has one counts.

    The files are those of `folder` (the current one). Raises AppError(INVALID_CONFIG) that names all that is wrong.
    """
    return load(environ, folder).settings


def export_env_file(environ: MutableMapping[str, str] | None = None, folder: Path | None = None) -> None:
    """Adds the variables of `.env` to the environment, which wins, for libraries that look there (OPENAI_API_KEY)."""
    environ = os.environ if environ is None else environ
    variables, _ = read_env_file((folder or Path()) / ".env")
    for name, value in _without_empty(variables).items():
        environ.setdefault(name, value)


def load(environ: Mapping[str, str] | None = None, folder: Path | None = None) -> Loaded:
    given, problems = _read(_without_empty(os.environ if environ is None else environ), folder or Path())
    settings, wrong_values = _validate(given)
    if problems or wrong_values or settings is None:
        raise _error([*problems, *wrong_values])
    return Loaded(settings, given)


def _read(environ: dict[str, str], folder: Path) -> tuple[dict[str, Given], list[Problem]]:
    env_file = folder / ".env"
    file_variables, problems = read_env_file(env_file)
    file_variables = _without_empty(file_variables)
    config_file = environ.get(CONFIG_VARIABLE) or file_variables.get(CONFIG_VARIABLE)
    _warn_of_unused(chain(environ, file_variables))
    readings = chain(
        read_toml(folder / (config_file or "config.toml"), required=config_file is not None),
        read_variables(file_variables, str(env_file)),
        read_variables(_with_database_parts(environ, file_variables), "environment"),
    )
    given: dict[str, Given] = {}
    for item in readings:
        if isinstance(item, Problem):
            problems.append(item)
        else:
            given[item.path] = item
    return given, problems


def _without_empty(variables: Mapping[str, str]) -> dict[str, str]:
    """An empty variable counts as not set: compose files pass `${NAME:-}` for what nobody set."""
    return {name: value for name, value in variables.items() if value.strip()}


def _with_database_parts(environ: dict[str, str], file_variables: dict[str, str]) -> dict[str, str]:
    """DB_* make one URL together, so those of the environment are completed by those of `.env`."""
    if DATABASE_PARTS.keys().isdisjoint(environ):
        return environ
    return {name: value for name, value in file_variables.items() if name in DATABASE_PARTS} | environ


def _warn_of_unused(names: Iterable[str]) -> None:
    unused = sorted({name for name in names if name.startswith(UNUSED_PREFIX)})
    if unused:
        log.warning("%s: not used, because %s", ", ".join(unused), UNUSED_REASON)


def _validate(given: dict[str, Given]) -> tuple[Settings | None, list[Problem]]:
    """The rules between settings are checked on the rest once single wrong values are put aside."""
    problems: list[Problem] = []
    rest = dict(given)
    while True:
        try:
            return Settings.model_validate(_tree(rest)), problems
        except ValidationError as error:
            details = error.errors(include_url=False)
        broken = [rule for detail in details for rule in detail.get("ctx", {}).get("broken", [])]
        if broken:
            wrong = given.keys() - rest.keys()
            problems += [_rule_problem(rule, given) for rule in broken if wrong.isdisjoint(rule.fields)]
            return None, problems
        for detail in details:
            path = _path(detail)
            problems.append(_value_problem(given[path], detail))
            rest.pop(path, None)


def _tree(given: Mapping[str, Given]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, item in given.items():
        section, _, key = path.rpartition(".")
        (tree.setdefault(section, {}) if section else tree)[key] = item.value
    return tree


def _path(detail: ErrorDetails) -> str:
    """`("api", "cors_origins", 0)` -> `api.cors_origins`."""
    first = str(detail["loc"][0])
    return first if first in setting_fields() else f"{first}.{detail['loc'][1]}"


def _value_problem(given: Given, detail: ErrorDetails) -> Problem:
    rule = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    inside = detail["loc"][given.path.count(".") + 1 :]
    place = f"item {inside[0] + 1} " if inside and isinstance(inside[0], int) else _in_table(inside)
    return Problem(given.name, given.source, place + rule, given.written)


def _in_table(inside: tuple[int | str, ...]) -> str:
    """`("files", "url")` -> `files.url `."""
    return f"{'.'.join(map(str, inside))} " if inside else ""


def _rule_problem(rule: Rule, given: Mapping[str, Given]) -> Problem:
    """Named by the settings of the rule that somebody set; the defaults that meet them stand in the text."""
    named = [given[path] for path in rule.fields if path in given]
    defaults = [f"{path} is {_default(path)}" for path in rule.fields if path not in given]
    return Problem(
        ", ".join(item.name for item in named),
        ", ".join(dict.fromkeys(item.source for item in named)),
        rule.text + (f" ({', '.join(defaults)} by default)" if defaults else ""),
        ", ".join(item.written for item in named),
    )


def _default(path: str) -> str:
    return str(setting_fields()[path].default)


def _error(problems: list[Problem]) -> AppError:
    lines = [
        f"  {problem.name}{f' = {problem.value}' if problem.value else ''} ({problem.source}): {problem.rule}"
        for problem in problems
    ]
    return AppError(
        ErrorCode.INVALID_CONFIG,
        "\n".join(["The configuration is wrong:", *lines]),
        errors=[_field_error(problem) for problem in problems],
    )


def _field_error(problem: Problem) -> FieldError:
    error = FieldError(place=f"{problem.name} ({problem.source})", detail=problem.rule)
    if problem.value is not None:
        error["value"] = problem.value
    return error
