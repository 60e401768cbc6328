"""`python -m scripts.openapi_types.document` prints the API's OpenAPI document, as `scripts/types` needs it."""

import hashlib
import json

from gateway.app import create_app
from shared.config import AuthSettings, Settings

HEADER = "// Made by scripts/types from the OpenAPI document with the SHA-256 {digest}: do not change it by hand.\n"


def document() -> str:
    """The same text for the same API."""
    app = create_app(Settings(auth=AuthSettings(enabled=False)))
    return json.dumps(app.openapi(), sort_keys=True, indent=1)


def header(text: str) -> str:
    """The first line of the types of this document, by which anyone can tell whether they are its own."""
    return HEADER.format(digest=hashlib.sha256(text.encode()).hexdigest())


if __name__ == "__main__":
    print(document())
