"""A worker's own port."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter
from pydantic import SecretStr

from modem.port import WorkerPort, open_port
from shared.config import MetricsSettings, Settings
from tests.support.ports import free_port


@contextmanager
def a_port(settings: MetricsSettings, *, alive: bool = True, ready: bool = True) -> Iterator[WorkerPort]:
    registry = CollectorRegistry()
    Counter("some", "Some.", registry=registry).inc()
    port = open_port(settings, registry, alive=lambda: alive, ready=lambda: ready)
    assert port
    try:
        yield port
    finally:
        port.close()


def get(port: WorkerPort, path: str, **headers: str) -> httpx.Response:
    return httpx.get(f"http://127.0.0.1:{port.number}{path}", headers=headers)


def test_there_is_none_unless_it_is_set() -> None:
    assert open_port(MetricsSettings(), CollectorRegistry(), alive=lambda: True, ready=lambda: True) is None


def test_several_workers_of_a_machine_have_one_each() -> None:
    settings = MetricsSettings(worker_port=free_port())
    with a_port(settings) as first, a_port(settings) as second:
        assert second.number > first.number == settings.worker_port
        for port in (first, second):
            assert "some_total 1.0" in get(port, "/metrics").text


def test_with_a_token_metrics_are_for_who_has_it_and_health_is_for_all() -> None:
    settings = MetricsSettings(worker_port=free_port(), token=SecretStr("for-prometheus"))
    with a_port(settings) as port:
        assert get(port, "/metrics").status_code == 401
        assert get(port, "/metrics", Authorization="Bearer wrong").status_code == 401
        assert get(port, "/metrics", Authorization="Bearer for-prometheus").status_code == 200
        assert get(port, "/health/live").status_code == 200


def test_health_is_what_the_worker_says_of_itself() -> None:
    with a_port(MetricsSettings(worker_port=free_port()), ready=False) as port:
        assert get(port, "/health/live").status_code == 200
        assert get(port, "/health/ready").status_code == 503
        assert get(port, "/nothing").status_code == 404


def test_it_may_not_be_open_to_others_without_a_token() -> None:
    with pytest.raises(ValueError, match=r"metrics\.token"):
        Settings(metrics=MetricsSettings(worker_port=9464, worker_host="0.0.0.0"))
    Settings(metrics=MetricsSettings(worker_port=9464, worker_host="0.0.0.0", token=SecretStr("x")))
