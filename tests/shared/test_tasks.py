"""What has to end does end, even where a cancellation gets lost on the way."""

import asyncio
from contextlib import suppress

import pytest

from shared.tasks import TimeLimit


async def for_ever() -> None:
    await asyncio.Event().wait()


async def loses_one() -> None:
    with suppress(asyncio.CancelledError):
        await for_ever()
    await for_ever()


async def test_a_time_limit_ends_what_swallows_a_cancellation() -> None:
    async with asyncio.timeout(5):
        with pytest.raises(TimeoutError):
            async with TimeLimit(0.01) as limit:
                await loses_one()
    assert limit.expired()
    await asyncio.sleep(0)  # nothing of it comes later


@pytest.mark.parametrize("seconds", [None, 60])
async def test_what_ends_in_time_is_left_alone(seconds: float | None) -> None:
    async with TimeLimit(seconds) as limit:
        await asyncio.sleep(0)
    assert not limit.expired()


async def test_what_the_block_raises_comes_out_as_it_is() -> None:
    with pytest.raises(TimeoutError, match="its own"):
        async with TimeLimit(60) as limit:
            raise TimeoutError("its own")
    assert not limit.expired()


async def test_somebody_elses_cancellation_is_one_still() -> None:
    begun = asyncio.Event()

    async def limited() -> None:
        async with TimeLimit(0.01):
            begun.set()
            await loses_one()

    task = asyncio.create_task(limited())
    await begun.wait()
    task.cancel()
    await asyncio.wait([task], timeout=0.3)  # the limit comes first, and is not what ends it
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(asyncio.shield(task), 5)
    assert task.cancelled()
