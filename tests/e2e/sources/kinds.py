"""A user's module as source 004 has it: `AGENT_REGISTRY_MODULES=tests.e2e.sources.kinds`."""

from workflow.definitions import AgentRegistry, BaseAgent


class MyCustomAgent(BaseAgent):
    async def initialize(self) -> None:
        await super().initialize()

    async def activate(self) -> None:
        await super().activate()

    async def deactivate(self) -> None:
        await super().deactivate()

    async def shutdown(self) -> None:
        await super().shutdown()


def load_agents(registry: AgentRegistry) -> None:
    registry.register(MyCustomAgent, "my_agent", "My custom agent")
