"""The last step of `scripts/types`: OPENAPI TYPES, both files, become console/src/api.d.ts."""

import sys
from pathlib import Path

from scripts.openapi_types.document import header

TYPES = Path(__file__).resolve().parents[2] / "console" / "src" / "api.d.ts"


def main(openapi: Path, types: Path) -> None:
    TYPES.parent.mkdir(parents=True, exist_ok=True)
    TYPES.write_text(header(openapi.read_text().rstrip("\n")) + types.read_text())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
