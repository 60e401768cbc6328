"""The bench of subscribers measures what it says: every event reaches every subscriber of its thread."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_every_event_is_delivered_and_no_connection_lost() -> None:
    options = ["--subscribers", "--streams", "150", "--sockets", "60", "--seconds", "2"]
    command = [sys.executable, "-P", "-m", "scripts.benchmark", *options]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True).stdout
    counted = re.search(r"([\d,]+) events, ([\d,]+) deliveries of ([\d,]+), (\d+) connections lost", shown)
    assert counted, shown
    events, got, expected, lost = (int(figure.replace(",", "")) for figure in counted.groups())
    assert events > 5
    assert (got, lost) == (expected, 0)
    assert "p99" in shown
