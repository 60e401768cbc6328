"""What runs share in one worker: settings, models, tools, the sandbox provider. Built once, passed on."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from redis.asyncio import Redis

from shared.budgets.store import Budgets
from shared.config import LlmSettings, Settings
from shared.garbage import settle
from shared.install import find_install
from shared.net.guard import Guard
from shared.tracing import open_tracing
from shared.types import JSON, RESERVED
from shared.version import VERSION
from shared.workers.catalogue import Catalogue, FunctionCard, TemplateCard
from shared.workers.tools import ToolCard
from workflow.definitions.hooks import hooks_function
from workflow.definitions.registry import AgentRegistry, load_definitions
from workflow.engine.durable import Functions
from workflow.llm.breaker.breaker import Breaker, BreakerPolicy
from workflow.llm.choose import Chosen, build_model, choose_model
from workflow.llm.client import LiteLLMModel, close_connections
from workflow.llm.demo import DEMO
from workflow.llm.known_models import known_models
from workflow.llm.pool import ModelPool
from workflow.llm.response_cache import ResponseCache, response_cache
from workflow.llm.retry import RetryPolicy
from workflow.llm.types import Model
from workflow.mcp.servers import McpTools, open_mcp_tools
from workflow.observe import Observer
from workflow.sandbox.base import SandboxProvider
from workflow.sandbox.choose import choose_provider
from workflow.template.templates import load_templates
from workflow.tool.base import CallLimits, Tool
from workflow.tool.catalogue import known_tools
from workflow.tool.listing import cards_of
from workflow.tool.registry import Registry
from workflow.tool.trial import trial_function
from workflow.tool.workspace import WorkspaceTools
from workflow.web.web import Web


@dataclass(frozen=True)
class Runtime:
    """`chosen`: the model of runs that name none. `fallbacks` take over from any run's model while it cannot answer."""

    settings: Settings
    redis: Redis
    chosen: Chosen
    sandboxes: SandboxProvider
    all_tools: Registry
    retry: RetryPolicy
    breaker: Breaker
    budgets: Budgets
    tool_limits: CallLimits
    functions: Functions
    known_tools: Sequence[Tool[Any]] = ()
    """The worker's own, those too that agents are not given."""
    mcp: McpTools = field(default_factory=McpTools)
    definitions: AgentRegistry = field(default_factory=AgentRegistry)
    models: dict[str, Model] = field(default_factory=dict)
    fallbacks: list[Model] = field(default_factory=list)
    web: Web = field(default_factory=Web)
    responses: ResponseCache | None = None
    workspace_tools: WorkspaceTools = field(default_factory=lambda: WorkspaceTools(Settings(), Guard()))
    observer: Observer = field(default_factory=Observer)

    def model(self, name: str | None) -> Model:
        """The model of that name, or the default one. Raises AppError INVALID_CONFIG for a name of no provider."""
        chosen = self.chosen
        if name is not None and name != chosen.name:
            chosen = choose_model(self.settings.llm, os.environ, name)
        if chosen.name not in self.models:
            self.models[chosen.name] = build_model(chosen, self.settings.llm)
        return self.models[chosen.name]

    @property
    def delegate_models(self) -> frozenset[str]:
        """Those that an agent may give to another, beside its own."""
        llm = self.settings.llm
        planning = [llm.planning_model] if llm.planning_model else []
        return frozenset([self.chosen.name, *planning, *llm.fallback_models, *self.settings.agent.delegate_models])

    def pool(self, model: Model, paid: Callable[[Model], Model]) -> ModelPool:
        """The model with what makes it dependable: its calls go through here. `paid` makes a model's calls paid for."""
        others = [fallback for fallback in self.fallbacks if fallback.name != model.name]
        return ModelPool([paid(each) for each in (model, *others)], self.breaker, self.retry, self.observer)

    def tools(
        self, names: list[str] | None, of_workspace: Sequence[JSON] = (), of_servers: Sequence[Tool[Any]] = ()
    ) -> Registry:
        """Those of the names, or all that are enabled. `of_workspace`: what a run carries of its workspace's tools.
        `of_servers`: those of its agent's own MCP servers.

        Raises AppError INVALID_REQUEST for an unknown one, and for one that cannot be made.
        """
        given = self.mcp.joined(self.all_tools)
        given = given.plus(of_servers) if of_servers else given
        if names is None:
            return given
        return given.plus(self.workspace_tools.made(of_workspace)).only(names)

    def tool_cards(self) -> list[ToolCard]:
        """Of all tools that there are now, those too that agents are not given."""
        return cards_of([*self.known_tools, *self.mcp.tools], self.settings.tools.gives)

    def catalogue(self) -> Catalogue:
        """What the gateway is told of all this, beside the tools.

        Raises AppError INVALID_CONFIG for a kind of agent that has a tool that there is not.
        """
        models, templates = known_models(), load_templates(self.settings.templates.folder)
        functions = self.functions.versions.items()
        return Catalogue(
            release=VERSION,
            definitions=self.definitions.given(self.mcp.joined(self.all_tools).names),
            functions=[FunctionCard(name, versions) for name, versions in functions if not name.startswith(RESERVED)],
            templates=[TemplateCard(template.name, template.manifest.description) for template in templates],
            providers=models.providers,
            models=[*models.names, DEMO],
            deployment=self.model(None).deployment,
        )


@asynccontextmanager
async def open_runtime(settings: Settings, client: Redis) -> AsyncIterator[Runtime]:
    """Loads and warms up the default model (LiteLLM takes three seconds), so that a ready worker is ready.

    Raises AppError INVALID_CONFIG for a fallback model of no provider, and for a tool or a template that is not in
    order.
    """
    web, known, gives = Web.of(settings), known_tools(settings), settings.tools.gives
    definitions = load_definitions(settings.agents, settings.sandbox)
    async with open_mcp_tools(settings.mcp, web.services, gives) as mcp:
        own = Registry(tool for tool in known if gives(tool.name))
        ours = [hooks_function(definitions), trial_function(settings, client, web)]
        functions = Functions.of_modules(settings.workflow.modules, ours)
        async with _opened(settings, client, own, functions, web) as runtime:
            opened = replace(runtime, known_tools=known, mcp=mcp, definitions=definitions)
            opened.catalogue()  # what is wrong with it shows now
            yield opened


@asynccontextmanager
async def _opened(
    settings: Settings, client: Redis, tools: Registry, functions: Functions, web: Web
) -> AsyncIterator[Runtime]:
    llm, tracing = settings.llm, open_tracing(settings.tracing, "worker")
    runtime = Runtime(
        settings=settings,
        redis=client,
        chosen=choose_model(llm, os.environ),
        sandboxes=choose_provider(settings, await find_install(settings.sandbox, client)),
        all_tools=tools,
        retry=RetryPolicy(llm.max_attempts, llm.backoff_seconds, llm.backoff_max_seconds),
        breaker=Breaker(client, BreakerPolicy(llm.breaker_failures, llm.breaker_seconds)),
        budgets=Budgets(client, patience_seconds=None, replicas=settings.redis.replicas),
        tool_limits=CallLimits(
            output_chars=settings.tools.max_output_chars, tool_seconds=settings.tools.timeout_seconds
        ),
        functions=functions,
        responses=response_cache(settings.agents, client),
        web=web,
        observer=Observer(tracing=tracing, tools=set(tools.names), models=_named_models(llm)),
        workspace_tools=WorkspaceTools(settings, web.workspaces),
    )
    runtime.fallbacks.extend(runtime.model(name) for name in llm.fallback_models)
    for model in (runtime.model(None), *runtime.fallbacks):
        if isinstance(model, LiteLLMModel):
            await model.warm_up()
    settle()  # saves a fifth of a model call's CPU
    try:
        yield runtime
    finally:
        await asyncio.to_thread(tracing.close)
        await runtime.sandboxes.close()
        if any(isinstance(model, LiteLLMModel) for model in runtime.models.values()):
            await close_connections()


def _named_models(llm: LlmSettings) -> set[str]:
    """By the configuration."""
    return {name for name in (llm.model, llm.planning_model, *llm.fallback_models) if name}
