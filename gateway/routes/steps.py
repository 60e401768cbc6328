"""Steps: one by one, and those that wait for people, with their answers."""

import asyncio
import logging
import re
from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import Field
from redis.exceptions import ResponseError

from gateway.auth import Principal
from gateway.deps import Caller, IdempotencyKey, Runner, Services, WithServices
from gateway.idempotency import token
from gateway.openapi import errors
from gateway.patterns import looks_like
from gateway.routes.answers import Page, StepAnswer
from gateway.routes.bodies import HumanBody, ResolveBody
from gateway.routes.json_route import StrictJsonRoute
from gateway.routes.paging import NEXT, Limit, bad_cursor
from gateway.routes.runs import STEP_NUMBER
from gateway.routes.whole import whole_step
from shared.errors import AppError, ErrorCode
from shared.history.steps import SeenStep
from shared.threads.steps import Answer
from shared.types import StepStatus, WaitKind

READ_AT_ONCE = 20
CURSOR = re.compile(r"([0-9]{1,15})-(.+)")
"""Since when a step waits (milliseconds), and its id."""
ApprovalCursor = Annotated[Annotated[str, Field(max_length=100), looks_like(f"^{CURSOR.pattern}$")] | None, NEXT]

log = logging.getLogger("trunkline.gateway")

router = APIRouter(tags=["steps"], route_class=StrictJsonRoute)


@router.get("/approvals", operation_id="listApprovals", summary="What waits for people", responses=errors(400))
async def list_approvals(
    services: WithServices, caller: Caller, limit: Limit = 50, cursor: ApprovalCursor = None
) -> Page[StepAnswer]:
    """Oldest first: approvals (`wait.kind` human), and steps whose outcome nobody knows (`outcome`).

    What is answered meanwhile is left out, so a page may have fewer items than `limit`.
    """
    found = await services.outside.approvals.page(caller.tenant, _place_of(cursor), limit + 1)
    at_once = asyncio.Semaphore(READ_AT_ONCE)

    async def read(step_id: str) -> StepAnswer | None:
        async with at_once:
            return await _waiting(services, caller, step_id)

    answers = await asyncio.gather(*(read(step_id) for _, step_id in found[:limit]))
    return Page(
        items=[answer for answer in answers if answer],
        next_cursor="{}-{}".format(*found[limit - 1]) if len(found) > limit else None,
    )


def _place_of(cursor: str | None) -> tuple[int, str] | None:
    """Raises AppError INVALID_REQUEST."""
    if cursor is None:
        return None
    if (known := CURSOR.fullmatch(cursor)) is None:
        raise bad_cursor()
    return int(known[1]), known[2]


async def _waiting(services: Services, caller: Principal, step_id: str) -> StepAnswer | None:
    """None for a step that does not wait any more, or that this release cannot read: the others are listed."""
    try:
        step = await _step_of(services, caller, step_id)
    except AppError:
        return None
    except (ResponseError, ValueError, TypeError, KeyError):
        log.exception("step %s cannot be read", step_id)
        return None
    return StepAnswer.of(step) if step.record.open else None


@router.get("/steps/{step_id}", operation_id="getStep", summary="A step", responses=errors(404))
async def get_step(step_id: str, services: WithServices, caller: Caller) -> StepAnswer:
    """With its input, output and request, however large."""
    return await whole_step(services.store.payloads, await _step_of(services, caller, step_id))


@router.post(
    "/steps/{step_id}/human-complete",
    operation_id="completeHumanStep",
    summary="Answer a human step",
    responses=errors(400, 404, 409, 413),
)
async def human_complete(
    step_id: str, body: HumanBody, services: WithServices, caller: Runner, idempotency_key: IdempotencyKey = None
) -> StepAnswer:
    given = _Given(["human-complete", step_id, body.model_dump()], idempotency_key, WaitKind.HUMAN)
    return await _answer(services, caller, step_id, given, Answer(StepStatus.SUCCEEDED, result=body.output))


@router.post(
    "/steps/{step_id}/resolve",
    operation_id="resolveStep",
    summary="Settle an unknown outcome",
    responses=errors(400, 404, 409, 413),
)
async def resolve(
    step_id: str, body: ResolveBody, services: WithServices, caller: Runner, idempotency_key: IdempotencyKey = None
) -> StepAnswer:
    """For a step that was at work when its worker died, and whose effect must not be repeated unseen."""
    given = _Given(["resolve", step_id, body.model_dump()], idempotency_key, WaitKind.OUTCOME)
    answer = Answer(StepStatus.PENDING, result={"as": body.decision, "output": body.output})
    return await _answer(services, caller, step_id, given, answer)


@dataclass(frozen=True, slots=True)
class _Given:
    """A request that answers a step's wait of this kind."""

    request: list[Any]
    key: str | None
    kind: WaitKind


async def _answer(services: Services, caller: Principal, step_id: str, given: _Given, answer: Answer) -> StepAnswer:
    """The step as it is then. Raises AppError CONFLICT where it does not wait for this kind of answer."""
    await services.idempotency.reserve(caller.tenant, given.key, given.request, step_id)
    step = await _step_of(services, caller, step_id)
    by = token(given.key, given.request)
    signaled = await services.store.signal(step.run.id, step.record.key, answer, [given.kind], by=by)
    now = replace(step, record=await services.store.step_of(step.run.id, step.record.key) or step.record)
    if signaled is None or not signaled.answered:
        raise AppError(ErrorCode.CONFLICT, f"Step {step_id} is {now.record.status}: it waits for no such answer.")
    services.in_background(services.queue.ring(signaled.ring))
    return await whole_step(services.store.payloads, now)


async def _step_of(services: Services, caller: Principal, step_id: str) -> SeenStep:
    """Raises AppError NOT_FOUND, for a step of somebody else too."""
    run_id, _, number = step_id.rpartition(".")
    run = await services.run_of(caller, run_id) if STEP_NUMBER.fullmatch(number) else None
    step = await services.history.step(run.id, int(number)) if run else None
    if run is None or step is None:
        raise AppError(ErrorCode.NOT_FOUND, f"There is no step {step_id[:100]}.")
    [seen] = await services.history.seen(run, [step])
    return seen
