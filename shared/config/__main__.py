"""`python -m shared.config` checks the configuration and prints what is in force, with secrets masked."""

import json
import sys

from shared.config.load import Loaded, load
from shared.config.sections import sections
from shared.errors import AppError
from shared.secrets import mask_secrets


def show(loaded: Loaded) -> str:
    """The settings as TOML, each that somebody set with where it comes from."""
    values = loaded.settings.model_dump(mode="json")
    lines = [_line(key, values[key], loaded) for key in values if key not in sections()]
    for section in sections():
        lines += [
            "",
            f"[{section}]",
            *(_line(f"{section}.{key}", value, loaded) for key, value in values[section].items()),
        ]
    return "\n".join(lines)


def _line(path: str, value: object, loaded: Loaded) -> str:
    key = path.rpartition(".")[2]
    given = loaded.given.get(path)
    origin = f"  # {given.name} ({given.source})" if given else ""
    if value is None:
        return f"# {key} is not set"
    return f"{key} = {mask_secrets(json.dumps(value, ensure_ascii=False))}{origin}"


def main() -> int:
    try:
        print(show(load()))  # noqa: T201 - this program's output
    except AppError as error:
        print(error.detail, file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
