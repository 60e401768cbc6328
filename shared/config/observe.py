"""The settings of what a running installation tells of itself: metrics and traces."""

from typing import Annotated

from pydantic import Field, SecretStr

from shared.config.types import HttpUrl, Port, Section, Text


class MetricsSettings(Section):
    """Metrics for Prometheus: the gateway's at /metrics, each worker's at a port of its own."""

    token: SecretStr | None = Field(
        default=None,
        description="What a scraper sends as Authorization: Bearer TOKEN. Unset: metrics are for this machine only.",
        examples=["a-secret-for-prometheus"],
    )
    worker_port: Port | None = Field(
        default=None,
        description="Port of a worker's /metrics and /health; where it is taken, the next free one of a hundred. "
        "Unset: workers have none.",
        examples=[9464],
    )
    worker_host: Text = Field(
        default="127.0.0.1",
        description="Address that this port listens on. Any other than a loopback address needs metrics.token.",
    )


class TracingSettings(Section):
    """OpenTelemetry traces (pip install 'trunkline[otel]')."""

    endpoint: HttpUrl | None = Field(
        default=None,
        description="Where spans are sent by OTLP over HTTP, to /v1/traces below it. Unset: there are no traces.",
        examples=["http://127.0.0.1:4318"],
    )
    sample: Annotated[float, Field(ge=0, le=1)] = Field(
        default=1.0, description="Part of the traces that are kept. A caller's own decision (traceparent) goes first."
    )
    contents: bool = Field(
        default=False, description="Whether spans have what models read and write, and what tools are given and answer."
    )
