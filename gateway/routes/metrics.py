"""The gateway's metrics, for Prometheus."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.auth import is_local_name
from gateway.checks import findings
from gateway.deps import Services, WithServices
from gateway.openapi import public_errors
from shared.config.rules import is_loopback
from shared.errors import AppError, ErrorCode
from shared.metrics import CONTENT_TYPE, exposition, may_read

router = APIRouter(tags=["health"])


@router.get(
    "/metrics",
    operation_id="getMetrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={
        **public_errors(401, 404),
        200: {"description": "Prometheus' text format.", "content": {"text/plain": {"schema": {"type": "string"}}}},
    },
    openapi_extra={"security": [{"metricsToken": []}, {}]},
)
async def metrics(services: WithServices, request: Request) -> Response:
    """With `metrics.token`: for those who send it. Without: for this machine, and 404 for everybody else."""
    _check_reader(services, request)
    await _look(services)
    return Response(exposition(services.metrics.registry), headers={"Content-Type": CONTENT_TYPE})


def _check_reader(services: Services, request: Request) -> None:
    token = services.settings.metrics.token
    if token is not None:
        if not may_read(token, request.headers.get("authorization", "")):
            raise AppError(ErrorCode.UNAUTHORIZED, "Metrics need their own token (metrics.token in the configuration).")
        return
    client = request.client.host if request.client else ""
    # The name too: a web page that made its own name point at this machine is not of this machine.
    if not is_loopback(client) or not is_local_name(request.url.hostname or ""):
        raise AppError(ErrorCode.NOT_FOUND, "There are no metrics for you here: set metrics.token, and send it.")


async def _look(services: Services) -> None:
    """What is as it is now, rather than counted."""
    found, metrics = await findings(services), services.metrics
    metrics.redis_up.set(found["redis"].there)
    metrics.database_up.set(found["database"].there)
    if (workers := found["workers"].value) is not None:
        metrics.workers_alive.set(len(workers))
    for priority, depth in (found["queue"].value or {}).items():
        metrics.queue_depth.labels(priority).set(depth)
