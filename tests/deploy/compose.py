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

    def fill(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        value = variables.get(match["name"], "")
        if value == "" and match["kind"] == ":?":
            raise KeyError(match["name"])
        return value or (match["rest"] or "" if match["kind"] == ":-" else "")

    text = (ROOT / "docker-compose.yml").read_text()
    # Comments may tell of a variable without using it.
    document: JSON = yaml.safe_load(VARIABLE.sub(fill, re.sub(r"(?m)^\s*#.*$", "", text)))
    return document
