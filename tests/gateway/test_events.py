"""What the gateway does about an event besides storing it, it may leave to the sweeper."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from redis.exceptions import ConnectionError, ResponseError

from gateway.deps import Services
from gateway.routes.events import _deliver
from shared.errors import AppError, ErrorCode
from shared.events.bus import Topic


class Failing:
    def __init__(self, error: Exception) -> None:
        self._error = error

    async def deliver(self, _: Topic) -> Any:
        raise self._error


@pytest.mark.parametrize(
    "error", [ConnectionError("away"), ResponseError("WRONGTYPE"), AppError(ErrorCode.UNAVAILABLE, "away")]
)
async def test_a_delivery_in_the_background_that_fails_is_logged_and_raises_nothing(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    services = SimpleNamespace(outside=SimpleNamespace(answers=Failing(error)))
    await _deliver(cast("Services", services), Topic.of("w", "go"))
    assert "left to the sweeper" in caplog.text
