"""The event bus: what durable code waits for."""

import logging

from fastapi import APIRouter
from redis.exceptions import RedisError

from gateway.deps import BEGINS_WORK, IdempotencyKey, Runner, Services, WithServices
from gateway.openapi import errors
from gateway.routes.answers import Published
from gateway.routes.bodies import EventBody
from gateway.routes.json_route import StrictJsonRoute
from shared.errors import AppError
from shared.events.bus import Topic
from shared.ids import new_id

log = logging.getLogger("trunkline.gateway")

router = APIRouter(prefix="/events", tags=["events"], route_class=StrictJsonRoute)


@router.post(
    "",
    operation_id="publishEvent",
    dependencies=BEGINS_WORK,
    summary="Publish an event",
    status_code=201,
    responses=errors(400, 404, 409, 413),
)
async def publish(
    body: EventBody, services: WithServices, caller: Runner, idempotency_key: IdempotencyKey = None
) -> Published:
    """Whoever waits for it goes on; who comes to wait for it later finds it, for as long as events are kept."""
    if body.run_id is not None:
        await services.run_of(caller, body.run_id)
    else:
        caller.check_whole_workspace()  # runs of any project may wait for it
    event_key = await services.idempotency.reserve(
        caller.tenant, idempotency_key, ["event", body.model_dump()], new_id()
    )
    topic = Topic.of(caller.workspace, body.name, key=body.key, run_id=body.run_id)
    event_id, waited_for = await services.outside.bus.publish(topic, body.payload, key=body.key, event_key=event_key)
    if waited_for:
        services.in_background(_deliver(services, topic))
    return Published(event_id=event_id, name=body.name, key=body.key, run_id=body.run_id)


async def _deliver(services: Services, topic: Topic) -> None:
    """At once for the first of those who wait; the workers' sweepers do the rest, and all of it if this fails."""
    try:
        delivered = await services.outside.answers.deliver(topic)
    except (RedisError, AppError) as error:
        log.warning("the waiters for event %r are left to the sweeper: %s", topic.name, error)
        return
    for run_id in delivered.rings:
        await services.queue.ring(run_id)
