"""The table of attacks names tests that there are."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ATTACKS = 24


def test_every_attack_of_the_table_is_tried() -> None:
    rows = re.findall(r"^\| (\d+) \| .* \| (`.*`) \|$", (ROOT / "docs/sandboxes.md").read_text(), re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, ATTACKS + 1))
    named = [name for _, tests in rows for name in re.findall(r"`(\w+\.py)::(\w+)`", tests)]
    assert len(named) >= ATTACKS
    missing = [
        f"{file}::{test}"
        for file, test in named
        if not re.search(
            rf"^(?:async )?def {test}\(", (ROOT / "tests/workflow/sandbox" / file).read_text(), re.MULTILINE
        )
    ]
    assert missing == []
