"""Variables put into texts. A marker is `@@name@@` or `@@name.form@@`, which is no code in any usual language.

A form makes the value fit its place: `json` is a quoted string of JSON, JavaScript, Python and TOML, `html` is text or
an attribute of HTML, `snake` is a Python module's name. Without a form the value stands as it is.
"""

import html
import json
import keyword
import re
import sys
import unicodedata
from collections.abc import Callable, Mapping

MARKER = re.compile(r"@@([a-z][a-z0-9_]*)(?:\.([a-z]+))?@@")
MAX_VALUE_CHARS = 200


def _snake(value: str) -> str:
    name = re.sub(r"\W+", "_", value.lower(), flags=re.ASCII)
    name = name if name[:1].isalpha() else f"_{name}"
    return f"{name}_" if keyword.iskeyword(name) or name in sys.stdlib_module_names else name


FORMS: dict[str, Callable[[str], str]] = {
    "json": lambda value: json.dumps(value, ensure_ascii=False),
    "html": html.escape,
    "snake": _snake,
}


def markers(text: str) -> set[tuple[str, str]]:
    """Pairs of variable and form ("": as it is)."""
    return set(MARKER.findall(text))


def fill(text: str, values: Mapping[str, str]) -> str:
    """`values` has every variable of the text. What a value itself holds is never taken for a marker."""

    def value_of(match: re.Match[str]) -> str:
        name, form = match.groups()
        return FORMS[form](values[name]) if form else values[name]

    return MARKER.sub(value_of, text)


def unfit(value: str) -> str | None:
    """What makes a value unfit for any place; None: nothing. A line break would end a string or a comment."""
    if len(value) > MAX_VALUE_CHARS:
        return f"has {len(value)} characters, more than {MAX_VALUE_CHARS}"
    if any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in value):
        return "holds a line break or a control character"
    return None
