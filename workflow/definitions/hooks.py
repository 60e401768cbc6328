"""The hooks of agents, as a durable function: each is called in the order in which its agent's status changed.

At least once: again where the worker that was at it died.
"""

from typing import Any

from shared.types import AGENT_HOOKS
from workflow.definitions.base import Instance
from workflow.definitions.registry import AgentRegistry
from workflow.engine.durable import DurableFunction


def hooks_function(definitions: AgentRegistry) -> DurableFunction:
    async def call_hooks(step: Any, input: Any) -> None:
        """`input`: the definition's name, the agent (fields of Instance), and the hooks to call."""
        agent = definitions.make(input["definition"], Instance(**input["agent"]))
        for hook in input["hooks"]:
            await step.do(hook, getattr(agent, hook))

    return DurableFunction(AGENT_HOOKS, 1, call_hooks)
