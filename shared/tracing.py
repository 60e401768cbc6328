"""Traces, if somebody wants them: one from a request through its run's attempts to the models and tools that they use.

Unless `tracing.endpoint` is set, nothing of OpenTelemetry is imported here (only shared/otel.py does), and a span
is nothing.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Literal, Protocol

from shared.config import TracingSettings
from shared.errors import AppError, ErrorCode

Value = str | bool | int | float | list[str]
Attributes = Mapping[str, Value | None]
"""What is None is left out."""
Kind = Literal["server", "client", "consumer", "internal"]


class Tracing(Protocol):
    """`contents`: whether spans have what models and tools are given and answer."""

    contents: bool

    def span(
        self, name: str, kind: Kind, attributes: Attributes, *, parent: str | None = None
    ) -> AbstractContextManager[None]:
        """Below the current span, or below `parent` (a traceparent). An exception that leaves it is its error."""
        ...

    def annotate(self, attributes: Attributes, *, name: str | None = None) -> None:
        """More of the current span, and its name where that was not known before."""
        ...

    def failed(self, kind: str) -> None:
        """The current span's work has failed, without an exception."""
        ...

    def close(self) -> None:
        """Sends what was not sent yet; takes some seconds where the receiver is away."""
        ...


class NoTracing:
    """Where nobody wants traces."""

    contents = False

    def span(
        self, name: str, kind: Kind, attributes: Attributes, *, parent: str | None = None
    ) -> AbstractContextManager[None]:
        return nullcontext()

    def annotate(self, attributes: Attributes, *, name: str | None = None) -> None:
        pass

    def failed(self, kind: str) -> None:
        pass

    def close(self) -> None:
        pass


def check_tracing(settings: TracingSettings) -> None:
    """Raises AppError INVALID_CONFIG where the extra is missing."""
    if settings.endpoint is not None and find_spec("opentelemetry.exporter") is None:
        raise AppError(
            ErrorCode.INVALID_CONFIG,
            "tracing.endpoint is set, and OpenTelemetry is not installed: pip install 'trunkline[otel]', or unset it.",
        )


def open_tracing(settings: TracingSettings, service: str) -> Tracing:
    """Raises as `check_tracing`."""
    check_tracing(settings)
    if settings.endpoint is None:
        return NoTracing()
    from shared.otel import OtelTracing  # noqa: PLC0415 - an optional dependency

    return OtelTracing(settings, service)
