"""Cancelling a call into an SDK."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from workflow.sandbox.machine import cancellation_kept


async def _raises_its_own_error() -> None:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError as error:
        raise ValueError("request was cancelled") from error


async def _goes_on_as_if_nothing_were() -> None:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        return


@pytest.mark.parametrize("call", [_raises_its_own_error, _goes_on_as_if_nothing_were])
async def test_a_cancellation_that_an_sdk_swallows_still_cancels(call: Callable[[], Awaitable[None]]) -> None:
    began = asyncio.Event()

    async def work() -> None:
        began.set()
        with cancellation_kept():
            await call()

    task = asyncio.create_task(work())
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_time_limit_around_a_call_is_no_cancellation() -> None:
    with pytest.raises(TimeoutError), cancellation_kept():
        async with asyncio.timeout(0):
            await asyncio.sleep(60)


async def test_an_error_without_a_cancellation_stays_itself() -> None:
    with pytest.raises(ValueError, match="own"), cancellation_kept():
        raise ValueError("own")
