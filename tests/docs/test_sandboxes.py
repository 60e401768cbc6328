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
    folder = ROOT / "tests/workflow/sandbox"
    assert [name for name in named if f"def {name[1]}(" not in (folder / name[0]).read_text()] == []
