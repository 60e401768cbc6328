"""Values of variables stay values, whatever they hold and wherever they stand."""

import ast
import html.parser
import json
import re
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow.template.render import fill, markers, unfit

HOSTILE = [
    "\"); import os; os.system('true') #",
    "'''\"\"\"",
    "back\\slash \\",
    "{name} {{name}} ${name} %s %(name)s",
    "<script>alert(1)</script>",
    "@@other@@",
    "--> ]]> */",
    "émoji 🎈",
]
FIT = st.text(max_size=40).filter(lambda value: unfit(value) is None)


@given(FIT)
def test_a_json_form_is_the_value_in_every_language_that_has_such_strings(value: str) -> None:
    literal = fill("@@x.json@@", {"x": value})
    assert json.loads(literal) == value
    assert ast.literal_eval(literal) == value
    assert tomllib.loads(f"x = {literal}")["x"] == value


@pytest.mark.parametrize("value", HOSTILE)
def test_an_html_form_is_text_and_nothing_else(value: str) -> None:
    seen: list[str] = []

    class Reader(html.parser.HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            seen.extend([tag, *(held or "" for _, held in attrs)])

        def handle_data(self, data: str) -> None:
            seen.append(data)

    reader = Reader()
    reader.feed(fill('<p title="@@x.html@@">@@x.html@@</p>', {"x": value}))
    reader.close()
    assert seen == ["p", value, value]


@given(FIT)
def test_a_snake_form_is_a_module_that_hides_none_of_pythons(value: str) -> None:
    name = fill("@@x.snake@@", {"x": value})
    assert re.fullmatch(r"[a-z_][a-z0-9_]*", name)
    assert name not in ("json", "class")


@pytest.mark.parametrize(
    ("value", "name"), [("my-tool", "my_tool"), ("json", "json_"), ("class", "class_"), ("3d", "_3d")]
)
def test_a_modules_name(value: str, name: str) -> None:
    assert fill("@@x.snake@@", {"x": value}) == name


def test_what_a_value_holds_is_no_marker() -> None:
    assert fill("@@a@@ @@b@@", {"a": "@@b@@", "b": "@@a.json@@"}) == "@@b@@ @@a.json@@"


def test_braces_of_other_languages_are_left_alone() -> None:
    text = "style={{ a }} {b} ${c} {% d %} <%= e %> @media @@ [[f]]"
    assert fill(text, {}) == text
    assert markers(text) == set()


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\x00b", "a\u2028b", "a\u2029b", "\ud800", "x" * 201])
def test_what_breaks_out_of_a_line_is_unfit(value: str) -> None:
    assert unfit(value)
