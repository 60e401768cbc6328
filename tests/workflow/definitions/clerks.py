"""Kinds of agents as a user writes them."""

from typing import ClassVar

from workflow.definitions import AgentRegistry, BaseAgent

calls: list[tuple[str, str, str]] = []
"""Hook, agent's name, what its metadata says: told by the workers of tests in this process."""


class Clerk(BaseAgent):
    prompt: ClassVar[str | None] = "You file what you are sent."
    tools: ClassVar[list[str] | None] = ["read_file"]
    limits: ClassVar[dict[str, float]] = {"max_turns": 4}

    async def initialize(self) -> None:
        self._note("initialize")

    async def activate(self) -> None:
        self._note("activate")
        if self.agent.metadata.get("fails"):
            raise ValueError("no desk is free")

    async def shutdown(self) -> None:
        self._note("shutdown")

    def _note(self, hook: str) -> None:
        calls.append((hook, self.agent.name, str(self.agent.metadata.get("note"))))


class Plain(BaseAgent):
    model: ClassVar[str | None] = "openai/plain"


def load_agents(registry: AgentRegistry) -> None:
    registry.register(Clerk, "clerk", "Files what it is sent.")
    registry.register(Plain, "plain", "Has nothing to do when it begins.")
