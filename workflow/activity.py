"""Tells those who watch an agent when its runs begin and end, beside the runs and without holding them up."""

import asyncio
import logging

from redis.exceptions import RedisError

from shared.channels import ChannelEvent, ChannelEventType, Channels
from shared.threads.types import Run
from shared.types import RunStatus

log = logging.getLogger("trunkline.runner")

MAX_UNTOLD = 1000
"""Events under way; beyond that many, new ones are dropped: the runs' own streams have the truth."""


class Activity:
    """Of the agents whose runs one worker executes. All methods belong to its event loop."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._untold: set[asyncio.Task[None]] = set()

    def tell(self, run: Run, status: RunStatus) -> None:
        """That a run of an agent has this status now. Never raises; nothing where the run is of no agent."""
        agent_id = (run.definition or {}).get("agent_id")
        if agent_id is None:
            return
        if len(self._untold) >= MAX_UNTOLD:
            log.warning("agent %s: nobody is told that run %s is %s", agent_id, run.id, status)
            return
        data = {"run_id": run.id, "thread_id": run.thread_id, "status": status, "attempt": run.epoch}
        event = ChannelEvent(ChannelEventType.ACTIVITY, run.workspace, agent_id, data, run.project)
        task = asyncio.create_task(self._publish(event))
        self._untold.add(task)
        task.add_done_callback(self._untold.discard)

    async def close(self) -> None:
        """Waits for what is under way."""
        if self._untold:
            await asyncio.wait(self._untold)

    async def _publish(self, event: ChannelEvent) -> None:
        try:
            await self._channels.publish(event)
        except RedisError as error:
            log.warning("agent %s: its activity was not published: %s", event.agent_id, error)
