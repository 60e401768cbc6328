"""The console's types are those of the API that the gateway serves."""

from scripts.openapi_types.document import document, header
from scripts.openapi_types.write import TYPES


def test_the_types_are_made_from_the_api_as_it_is() -> None:
    with TYPES.open() as file:
        first = file.readline()
    assert first == header(document()), "the API has changed: run scripts/types"


def test_the_types_know_what_the_api_has() -> None:
    text = TYPES.read_text()
    for name in ("ThreadAnswer", "RunAnswer", "StepAnswer", "Problem", "createRun"):
        assert f"        {name}: " in text or f"    {name}: " in text
