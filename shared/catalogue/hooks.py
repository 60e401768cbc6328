"""The runs that call the hooks of agents' kinds: named in SQL with the change of status, then submitted.

Whoever finds one named and not submitted submits it: a run is submitted once, however often that is tried.
"""

from shared.db import agents
from shared.db.agents import Agent
from shared.db.engine import Database
from shared.threads.store import ThreadStore
from shared.threads.types import NewRun, NewThread
from shared.types import AGENT_HOOKS, Runnable


async def submit_hooks(store: ThreadStore, database: Database, agent: Agent, *, key_id: str | None) -> str | None:
    """The agent's last hook run, if it is not sure that it was. Returns the run to ring for, if any.

    Raises AppError UNAVAILABLE, RedisError.
    """
    if agent.hooks is None or agent.hook_run is None or agent.hook_thread is None:
        return None
    instance = {name: getattr(agent, name) for name in ("id", "name", "workspace", "project")}
    instance |= {name: getattr(agent, name) for name in ("knowledge", "storage", "metadata")}
    thread = NewThread(agent.hook_thread, agent.workspace, {"hooks_of": agent.id}, project=agent.project)
    run = NewRun(
        agent.hook_run,
        agent.workspace,
        {"input": {"definition": agent.definition, "agent": instance, "hooks": agent.hooks}},
        runnable_type=Runnable.FUNCTION,
        runnable_id=AGENT_HOOKS,
        key_id=key_id,
    )
    await store.create_thread(thread)
    submitted = await store.submit(run, queued={"hooks": agent.hooks})
    async with database.begin() as c:
        await agents.told_hooks(c, agent)
    return submitted.ring
