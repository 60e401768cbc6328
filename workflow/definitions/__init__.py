"""Kinds of agents. In a module of `agents.registry_modules`:

class Clerk(BaseAgent):
    prompt = "You file what you are sent."

def load_agents(registry: AgentRegistry) -> None:
    registry.register(Clerk, "clerk", "Files what it is sent.")
"""

from shared.config.sandboxes import SandboxBounds
from workflow.definitions.base import BaseAgent, Instance
from workflow.definitions.registry import AgentRegistry

__all__ = ["AgentRegistry", "BaseAgent", "Instance", "SandboxBounds"]
