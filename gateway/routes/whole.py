"""Answers with the large values that lists leave out."""

import logging
from collections.abc import Awaitable
from typing import Any

from gateway.routes.answers import Reference, RunAnswer, StepAnswer
from shared.errors import AppError
from shared.history.steps import SeenStep
from shared.payloads.blobs import Ref
from shared.payloads.payloads import Payloads
from shared.threads.types import Run

log = logging.getLogger("trunkline.gateway")


async def whole_run(payloads: Payloads, run: Run) -> RunAnswer:
    update = await _field(payloads, "input", run.input, run.input_ref)
    update |= await _field(payloads, "output", run.output, run.output_ref)
    return RunAnswer.of(run).model_copy(update=update)


async def whole_step(payloads: Payloads, seen: SeenStep) -> StepAnswer:
    answer, step = StepAnswer.of(seen), seen.record
    update = await _read("input", seen.input_ref, seen.whole(payloads))
    update |= await _field(payloads, "output", step.result, step.payload)
    if step.wait and answer.wait:
        request = await _field(payloads, "request", step.wait.request, step.wait.request_ref)
        update["wait"] = answer.wait.model_copy(update=request)
    return answer.model_copy(update=update)


async def _field(payloads: Payloads, name: str, inline: Any, ref: Ref | None) -> dict[str, Any]:
    return await _read(name, ref, payloads.value(inline, ref))


async def _read(name: str, ref: Ref | None, reading: Awaitable[Any]) -> dict[str, Any]:
    """A value whose store is away, or lost it, is null: the rest of the answer can be had."""
    try:
        return {name: await reading, f"{name}_ref": Reference.of(ref)}
    except AppError as error:
        log.warning("%s", error.detail)
        return {name: None, f"{name}_ref": Reference.of(ref, error.code)}
