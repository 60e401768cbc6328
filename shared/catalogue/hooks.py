"""The runs that call the hooks of agents' kinds: named in SQL with the change of status, then submitted.

Whoever finds one named and not submitted submits it: a run is submitted once, however often that is tried.
"""

from shared.db import agents
from shared.db.agents import Agent
from shared.db.engine import Database
from shared.errors import AppError, ErrorCode
from shared.threads.store import ThreadStore
from shared.threads.types import NewRun, NewThread
from shared.types import AGENT_HOOKS, Runnable


async def submit_hooks(
    store: ThreadStore, database: Database, agent: Agent, *, key_id: str | None
) -> tuple[Agent, str | None]:
    """The agent's last hook run, if it is not sure that it was. Returns the agent, and the run to ring for, if any.

    Where somebody has deleted the thread of its hooks, it has another one then. Raises AppError NOT_FOUND (the agent),
    UNAVAILABLE, RedisError.
    """
    if agent.hooks is None or agent.hook_run is None or agent.hook_thread is None:
        return agent, None
    try:
        ring = await _submit(store, agent, agent.hook_thread, agent.hook_run, key_id)
    except AppError as error:
        if error.code is not ErrorCode.NOT_FOUND:
            raise
        async with database.begin() as c:
            agent = await agents.with_other_hook_thread(c, agent)
        return await submit_hooks(store, database, agent, key_id=key_id)
    async with database.begin() as c:
        await agents.told_hooks(c, agent)
    return agent, ring


async def _submit(store: ThreadStore, agent: Agent, thread_id: str, run_id: str, key_id: str | None) -> str | None:
    """Raises AppError NOT_FOUND where one of them was deleted."""
    instance = {name: getattr(agent, name) for name in ("id", "name", "workspace", "project")}
    instance |= {name: getattr(agent, name) for name in ("knowledge", "storage", "metadata")}
    thread = NewThread(thread_id, agent.workspace, {"hooks_of": agent.id}, project=agent.project)
    run = NewRun(
        run_id,
        agent.workspace,
        {"input": {"definition": agent.definition, "agent": instance, "hooks": agent.hooks}},
        runnable_type=Runnable.FUNCTION,
        runnable_id=AGENT_HOOKS,
        key_id=key_id,
    )
    await store.create_thread(thread)
    return (await store.submit(run, queued={"hooks": agent.hooks})).ring
