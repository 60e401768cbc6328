"""Traces cost nothing where nobody wants them, and are in order where somebody does."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator

import pytest

from shared.config import TracingSettings
from shared.correlation import Correlation
from shared.errors import AppError, ErrorCode
from shared.log import bound
from shared.otel import OtelTracing
from shared.tracing import NoTracing, open_tracing
from tests.support.otlp import Receiver, receiving
from tests.support.stack import ROOT

CALLER = "00-11111111111111111111111111111111-2222222222222222-01"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def tracing_to(receiver: Receiver, sample: float = 1.0) -> OtelTracing:
    return OtelTracing(TracingSettings(endpoint=receiver.url, sample=sample), "test")


WITHOUT = "sys.modules |= {f'opentelemetry.{name}': None for name in ('sdk', 'exporter', 'proto')}; "


@pytest.mark.parametrize("before", ["", WITHOUT])
def test_without_an_endpoint_nothing_of_it_is_imported_nor_needed(before: str) -> None:
    assert isinstance(open_tracing(TracingSettings(), "test"), NoTracing)
    # The SDK itself is imported by redis-py wherever it is installed.
    ours = "any(sys.modules.get(name) for name in ('shared.otel', 'opentelemetry.exporter'))"
    code = f"import sys; {before}import gateway.app, modem.worker; sys.exit({ours})"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=False).returncode == 0


def test_without_the_extra_an_endpoint_is_refused_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.tracing.find_spec", lambda _: None)
    with pytest.raises(AppError, match=r"trunkline\[otel\]") as refused:
        open_tracing(TracingSettings(endpoint="http://127.0.0.1:1"), "test")
    assert refused.value.code is ErrorCode.INVALID_CONFIG


async def test_spans_stand_below_those_that_are_open_in_their_task(receiver: Receiver) -> None:
    tracing = tracing_to(receiver)

    async def one(name: str) -> None:
        with tracing.span(name, "internal", {}):
            await asyncio.sleep(0)
            with tracing.span(f"{name} inner", "internal", {"x": None, "y": 1}):
                await asyncio.sleep(0)

    with tracing.span("outer", "server", {}, parent=CALLER):
        await asyncio.gather(one("a"), one("b"))
    await asyncio.to_thread(tracing.close)
    by_name = {span.name: span for span in receiver.spans}
    assert by_name["outer"].parent == "2" * 16
    assert {span.trace for span in receiver.spans} == {"1" * 32}
    for name in ("a", "b"):
        assert by_name[name].parent == by_name["outer"].id
        assert by_name[f"{name} inner"].parent == by_name[name].id
    assert by_name["a inner"].attributes == {"y": 1}


def test_an_error_is_told_by_its_code_and_without_its_words(receiver: Receiver) -> None:
    tracing = tracing_to(receiver)
    with pytest.raises(AppError), tracing.span("s", "internal", {}):
        raise AppError(ErrorCode.MODEL_ERROR, "It has said something secret.")
    tracing.close()
    [span] = receiver.spans
    assert (span.failed, span.attributes["error.type"]) == (True, "model_error")
    assert "secret" not in str(receiver.spans)


def test_a_run_asked_for_under_a_span_and_a_request_knows_both(receiver: Receiver) -> None:
    tracing = tracing_to(receiver)
    assert Correlation.current() == Correlation()
    with bound(request_id="r-1"), tracing.span("s", "server", {}):
        known = Correlation.current()
    assert Correlation.current() == Correlation()
    tracing.close()
    [span] = receiver.spans
    assert known.request_id == "r-1"
    assert str(known.traceparent)[:-2] == f"00-{span.trace}-{span.id}-"


def test_a_callers_decision_goes_before_the_share_that_is_kept(receiver: Receiver) -> None:
    tracing = tracing_to(receiver, sample=0)
    with tracing.span("ours", "server", {}):
        pass
    with tracing.span("theirs", "server", {}, parent=CALLER):
        pass
    tracing.close()
    assert [span.name for span in receiver.spans] == ["theirs"]


@pytest.mark.parametrize("nonsense", ["", "x", "00-1-2-3", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "é" * 55])
def test_a_parent_that_is_none_begins_a_trace_of_its_own(receiver: Receiver, nonsense: str) -> None:
    tracing = tracing_to(receiver)
    with tracing.span("s", "server", {}, parent=nonsense):
        pass
    tracing.close()
    assert [span.parent for span in receiver.spans] == [""]


def test_a_receiver_that_is_away_delays_the_end_by_seconds_at_most() -> None:
    tracing = OtelTracing(TracingSettings(endpoint="http://127.0.0.1:1"), "test")
    with tracing.span("s", "server", {}):
        pass
    tracing.close()
