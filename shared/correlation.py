"""What ties a run to the request that asked for it: in its record, in log lines, in traces."""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Self

from shared.log import bound_value

traceparent: ContextVar[str | None] = ContextVar("traceparent", default=None)
"""The span that work goes on under, as W3C Trace Context writes it; None where nothing is traced."""


@dataclass(frozen=True, slots=True)
class Correlation:
    """`traceparent`: the span that a run is a part of, as W3C Trace Context writes it."""

    request_id: str | None = None
    traceparent: str | None = None

    @classmethod
    def current(cls) -> Self:
        """Of the request, or of the run, that this is called for."""
        return cls(bound_value("request_id"), traceparent.get())
