"""The runs that a run calls: what they are made of, and how they are born."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from shared.catalogue.agents import check_hooked, left_of, within
from shared.errors import AppError, ErrorCode
from shared.events.outside import Outside
from shared.ids import thread_of
from shared.tenant import Tenant
from shared.threads.steps import StepRecord
from shared.threads.types import NewRun, NewThread, Run, input_of
from shared.types import AGENT_PARAMETERS, FUNCTION_PARAMETERS, JSON, Runnable
from workflow.engine.durable import DurableFunction

PASSED_ON = ("priority",)
"""Of a run's parameters, those that its children have too."""
CAPPED = ("max_turns", "max_seconds", "max_cost", "max_tokens", "max_delegates")
"""Of an agent's parameters, those of which a delegate has no more than it says itself."""
ASK_AGAIN_SECONDS = 1.0
NO_CATALOGUE = "There are no agents of workspaces here: this worker has no database."

log = logging.getLogger("trunkline.runner")


class Children:
    """Of one run."""

    def __init__(self, run: Run, outside: Outside) -> None:
        self._run = run
        self._outside = outside

    async def check(self, asked: JSON) -> None:
        """That the agent that is called takes runs. Raises as `AgentCatalogue.definition`."""
        if _agent_of(asked) is not None:
            await self._definition(asked)

    async def bear(self, record: StepRecord, *, to_cancel: bool = False) -> str | None:
        """Submits the child that a step waits for, once. Returns the run to ring for, if any.

        An agent is as it is now. Raises AppError STEP_FAILED for one that takes no runs any more, but for a child that
        is born `to_cancel`.
        """
        assert record.wait is not None
        child_id, parent = record.wait.name or "", self._run
        asked = await self._outside.store.payloads.value(record.wait.request, record.wait.request_ref)
        definition = await self._known_definition(child_id, asked, to_cancel=to_cancel)
        kind = Runnable(asked["type"])
        thread = NewThread(
            thread_of(child_id),
            parent.workspace,
            {"parent_run_id": parent.id},
            sandbox_of=asked["sandbox_of"],
            agent=_agent_of(asked),
            project=parent.project,
            derived=True,
        )
        await self._outside.store.create_thread(thread)
        inherited = {name: parent.parameters[name] for name in PASSED_ON if name in parent.parameters}
        new = NewRun(
            child_id,
            parent.workspace,
            input=input_of(kind, asked["input"]),
            runnable_type=kind,
            runnable_id=asked["id"],
            parameters=inherited | _parameters(asked, definition),
            definition=definition,
            user_uuid=parent.user_uuid,
            key_id=parent.key_id,
            parent=f"{parent.id} {record.key}",
            parent_step=record.number,
            depth=parent.depth + 1,
        )
        submitted = await self._outside.store.submit(new, queued={"parent_run_id": parent.id})
        return submitted.ring

    async def _known_definition(self, child_id: str, asked: JSON, *, to_cancel: bool) -> JSON | None:
        """What it carries of its agent, or was born with."""
        if _agent_of(asked) is None:
            return left_of(self._run.definition)
        if (born := await self._outside.store.run(child_id)) is not None:
            return born.definition
        try:
            return await self._definition(asked)
        except AppError as error:
            if to_cancel:
                return left_of(self._run.definition)
            raise AppError(ErrorCode.STEP_FAILED, error.detail) from error

    async def _definition(self, asked: JSON) -> JSON:
        found = await self._of_catalogue(str(_agent_of(asked)))
        only: Sequence[str] | None = asked.get("only_tools")
        return found if only is None else _keep_to(within(found, self._run.definition), only, self._run.definition)

    async def _of_catalogue(self, name: str) -> JSON:
        """Waits for a database that is away, or until a worker has told which kinds there are: runs do."""
        agents, tenant = self._outside.agents, Tenant(self._run.workspace, self._run.project)
        if agents is None:
            raise AppError(ErrorCode.NOT_IMPLEMENTED, NO_CATALOGUE)
        while True:
            try:
                definition, agent = await agents.definition(tenant, name)
                break
            except AppError as error:
                if error.code is not ErrorCode.UNAVAILABLE:
                    raise
                log.warning("run %s waits to call agent %s: %s", self._run.id, name, error.detail)
                await asyncio.sleep(ASK_AGAIN_SECONDS)
        if agent and agent.hook_run:
            check_hooked(agent, await self._outside.store.run(agent.hook_run))
        return definition


def _agent_of(asked: JSON) -> str | None:
    """The agent or the kind of agents that is called; None: nothing of the catalogue is."""
    name: str | None = asked["id"]
    return name if asked["type"] == Runnable.AGENT else None


def _keep_to(definition: JSON, tools: Sequence[str], parent: JSON | None) -> JSON:
    """An agent that does another's work: it has tools that the other has, its own servers' not among them."""
    own: Sequence[str] | None = definition["parameters"].get("tools")
    names = [name for name in tools if own is None or name in own]
    carried = {name: (parent or {})[name] for name in ("tools", "mcp_servers") if (parent or {}).get(name)}
    kept = {name: value for name, value in definition.items() if name not in ("tools", "mcp_servers")}
    return kept | carried | {"parameters": {**definition["parameters"], "tools": names}}


def _parameters(asked: JSON, definition: JSON | None) -> JSON:
    """Of a delegate, limits that its agent has too are the smaller ones, and its tools are settled."""
    parameters: JSON = asked.get("parameters", {})
    if "only_tools" not in asked or definition is None:
        return parameters
    own: JSON = definition.get("parameters", {})
    capped = {name: min(parameters[name], own[name]) for name in CAPPED if name in parameters and name in own}
    return parameters | capped | {"tools": own.get("tools", [])}


def runnable_of(runnable: Any) -> tuple[Runnable, str | None]:
    """What `step.call` is given, as a run has it. Raises AppError INVALID_REQUEST."""
    if isinstance(runnable, DurableFunction):
        return Runnable.FUNCTION, runnable.name
    kind, _, runnable_id = str(runnable).partition(":")
    if kind == Runnable.AGENT:
        return Runnable.AGENT, runnable_id or None
    if kind == Runnable.FUNCTION and runnable_id:
        return Runnable.FUNCTION, runnable_id
    raise AppError(
        ErrorCode.INVALID_REQUEST,
        f"step.call cannot run {runnable!r}. Give it a durable function, 'function:NAME', 'agent', or 'agent:ID'.",
    )


def parameters_of(kind: Runnable, parameters: JSON) -> JSON:
    """What `step.call` gives a child. Raises AppError INVALID_REQUEST for what would have no effect."""
    known = AGENT_PARAMETERS if kind is Runnable.AGENT else FUNCTION_PARAMETERS
    if unknown := sorted(parameters.keys() - known):
        raise AppError(
            ErrorCode.INVALID_REQUEST,
            f"{', '.join(unknown)}: no parameter of {'an agent' if kind is Runnable.AGENT else 'a function'}. "
            f"There are {', '.join(sorted(known))}.",
        )
    return parameters
