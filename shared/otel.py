"""Traces by OpenTelemetry, sent by OTLP over HTTP from a thread of its own."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from shared.config import TracingSettings
from shared.correlation import traceparent
from shared.errors import AppError
from shared.log import bound
from shared.tracing import Attributes, Kind
from shared.version import VERSION

SEND_SECONDS = 2.0
"""For one batch, its repetitions included."""
BATCH_MS = 1000
CLOSE_SECONDS = 3.0

_KINDS = {
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "consumer": SpanKind.CONSUMER,
    "internal": SpanKind.INTERNAL,
}


class OtelTracing:
    """See `Tracing`. Headers for the receiver come from OpenTelemetry's own OTEL_EXPORTER_OTLP_HEADERS."""

    def __init__(self, settings: TracingSettings, service: str) -> None:
        self.contents = settings.contents
        self._exporter = OTLPSpanExporter(f"{settings.endpoint}/v1/traces", timeout=SEND_SECONDS)
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(settings.sample)),
            resource=Resource.create({"service.name": f"trunkline-{service}", "service.version": VERSION}),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter, schedule_delay_millis=BATCH_MS))
        self._tracer = self._provider.get_tracer("trunkline", VERSION)
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def span(self, name: str, kind: Kind, attributes: Attributes, *, parent: str | None = None) -> Iterator[None]:
        above = self._propagator.extract({"traceparent": parent}) if parent else None
        span = self._tracer.start_span(name, above, _KINDS[kind], _given(attributes))
        context = span.get_span_context()
        before = traceparent.get()
        traceparent.set(f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}")
        try:
            with (
                bound(trace_id=f"{context.trace_id:032x}"),
                trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False),
            ):
                try:
                    yield
                except BaseException as error:
                    self.failed(error.code if isinstance(error, AppError) else type(error).__name__)
                    raise
        finally:
            traceparent.set(before)

    def annotate(self, attributes: Attributes, *, name: str | None = None) -> None:
        span = trace.get_current_span()
        span.set_attributes(_given(attributes))
        if name is not None:
            span.update_name(name)

    def failed(self, kind: str) -> None:
        span = trace.get_current_span()
        span.set_attribute("error.type", kind)
        span.set_status(Status(StatusCode.ERROR))

    def close(self) -> None:
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)
        if closing.is_alive():
            self._exporter.shutdown()  # type: ignore[no-untyped-call]


def _given(attributes: Attributes) -> dict[str, str | bool | int | float | list[str]]:
    return {name: value for name, value in attributes.items() if value is not None}
