"""docker-compose.yml as Compose would read it: variables filled in, defaults and merges applied."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>\w+)(?:(?P<kind>:[-?])(?P<rest>[^}]*))?\})")

JSON = dict[str, Any]


def load(variables: Mapping[str, str]) -> JSON:
    """Raises KeyError for a required variable that is not given."""
    document: JSON = _filled(yaml.safe_load((ROOT / "docker-compose.yml").read_text()), variables)
    return document


def _filled(part: Any, variables: Mapping[str, str]) -> Any:
    """Values are filled in after YAML has been read: an empty one is an empty text, not null."""
    if isinstance(part, dict):
        return {name: _filled(value, variables) for name, value in part.items()}
    if isinstance(part, list):
        return [_filled(value, variables) for value in part]
    return VARIABLE.sub(lambda match: _value(match, variables), part) if isinstance(part, str) else part


def _value(match: re.Match[str], variables: Mapping[str, str]) -> str:
    if match[0] == "$$":
        return "$"
    value = variables.get(match["name"], "")
    if value == "" and match["kind"] == ":?":
        raise KeyError(match["name"])
    return value or (match["rest"] if match["kind"] == ":-" else "")
