"""What a call is about, for the patterns of permissions: the paths and URLs among its arguments."""

import re
from collections.abc import Iterable
from typing import Any

from shared.permissions import Subject
from shared.types import JSON
from workflow.sandbox.base import WORKSPACE
from workflow.tool.paths import resolve

PLACES = re.compile(r"(?:.*_)?(?:path|url)|workdir|destination")


def subjects_of(arguments: JSON) -> list[Subject]:
    """Each path and URL among a call's arguments; where there is none, each other text."""
    leaves = list(_leaves("", arguments))
    places = [_place(name, text) for name, text in leaves if PLACES.fullmatch(name)]
    return places or [Subject((text,)) for _, text in leaves]


def _leaves(name: str, value: Any) -> Iterable[tuple[str, str]]:
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(key, inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(name, inner)


def _place(name: str, text: str) -> Subject:
    if "url" in name:
        return Subject((text.strip(),), (text.strip().lower(),))
    path = resolve(text)
    return Subject((path, path.removeprefix(f"{WORKSPACE}/")), (text,))
