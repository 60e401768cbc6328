"""A line for whatever an event may have of data: a log that crashes would cut its readers' streams."""

from typing import Any

import hypothesis.strategies as st
import orjson
from hypothesis import HealthCheck, given, settings

from gateway.stream.log_lines import line_of
from shared.types import EventType

NAMES = ["text", "stream", "name", "arguments", "ok", "content", "model", "cause", "error", "key", "level", "message"]
TEXT = st.text('aä😀{"\\ \n\r\t\x00\x1b\x7f\x85\u2028\ufeff', max_size=12)
"""Of characters that a line, JSON or a terminal takes amiss; all of Unicode would take a second to be set up."""
VALUES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT | st.just({"detail": {"x": [1]}})
DATA = st.dictionaries(st.sampled_from([*NAMES, "data_ref"]), VALUES)
SILENT = {EventType.AGENT_DELTA, EventType.AGENT_THINKING, EventType.AGENT_MESSAGE, EventType.AGENT_RESPONSE}
SILENT |= {EventType.STEP_STARTED, EventType.STEP_COMPLETED, EventType.STEP_WAITING_HUMAN}


@settings(suppress_health_check=[HealthCheck.too_slow], database=None)
@given(kind=st.sampled_from([*EventType, "plan"]), data=DATA)
def test_it_has_a_text_and_a_level_whatever_the_data(kind: str, data: dict[str, Any]) -> None:
    head = {"type": kind, "thread_id": "t", "run_id": "t.r", "step_id": None, "attempt": 1}
    line = line_of(b"5-0", kind, orjson.dumps({**head, "time": "2026-01-01T00:00:00.000Z", "data": data}))
    assert (line is None) == (kind in SILENT or kind == "plan")
    if line is not None:
        assert (line.id, line.run_id, line.attempt) == ("5-0", "t.r", 1)
        assert line.level in ("debug", "info", "warning", "error")
        assert isinstance(line.text, str)
