"""The flow of a durable function's run."""

import logging

import orjson

from shared.errors import AppError, ErrorCode
from shared.threads.attempt import Attempt, Change
from shared.types import JSON
from workflow.engine.durable import Functions
from workflow.engine.retry import in_words
from workflow.engine.step import Step

log = logging.getLogger("trunkline.function")


async def run_function(attempt: Attempt, step: Step, functions: Functions) -> JSON:
    """One attempt. Returns the data of `run.completed`. Raises AppError, Fenced."""
    run = attempt.run
    function = functions.get(run.runnable_id, run.version)
    if run.version is None:
        await attempt.commit(Change(run={"version": function.version}))
    try:
        output = await function(step, (await attempt.input()).get("input"))
        orjson.dumps(output)  # what cannot be recorded fails here, in words
    except AppError:
        raise
    except Exception as error:  # a user's code may raise anything
        log.warning("function %s failed", function.name, exc_info=True)
        raise AppError(ErrorCode.STEP_FAILED, in_words(error)) from error
    return {"output": output}
