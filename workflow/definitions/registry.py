"""All kinds of agents that a worker has: the built-in ones, those of the settings, and those of the user's modules."""

import importlib
import inspect
import re
from collections.abc import Collection, Iterable
from dataclasses import replace
from importlib import resources

from shared.config import AgentDefinition, AgentsSettings, SandboxSettings
from shared.config.sandboxes import SandboxBounds
from shared.errors import AppError, ErrorCode
from shared.permissions import Rule
from shared.types import JSON
from shared.workers.catalogue import DefinitionCard
from workflow.definitions.base import BaseAgent, Instance
from workflow.definitions.builtin import BUILT_IN, GENERAL

ID = re.compile(r"[a-zA-Z_][a-zA-Z0-9_-]{0,63}")
LIMITS = ("max_turns", "max_seconds", "max_cost", "max_tokens")


class AgentRegistry:
    """What `load_agents` is given."""

    def __init__(self, cards: Iterable[DefinitionCard] = ()) -> None:
        self._cards = {card.id: card for card in cards}
        self._kinds: dict[str, type[BaseAgent]] = {}

    @property
    def cards(self) -> list[DefinitionCard]:
        """By id."""
        return sorted(self._cards.values(), key=lambda card: card.id)

    def register(self, kind: type[BaseAgent], name: str, description: str) -> None:
        """Under an id that no other kind of yours has; one named like a built-in one replaces it.

        Raises AppError INVALID_CONFIG with what to change.
        """
        if not (inspect.isclass(kind) and issubclass(kind, BaseAgent)):
            raise _wrong(f"{kind!r} is registered as {name!r}, and is no class derived from BaseAgent.")
        if not ID.fullmatch(name):
            raise _wrong(f"{kind.__qualname__} has the name {name!r}. Use letters, digits, _ and -, at most 64.")
        if name in self._kinds:
            raise _wrong(f"There are two kinds of agents named {name!r}: {self._kinds[name].__qualname__} and "
                         f"{kind.__qualname__}. Rename one.")  # fmt: skip
        if unknown := sorted(kind.limits.keys() - set(LIMITS)):
            raise _wrong(f"{kind.__qualname__} has the limits {', '.join(unknown)}. There are {', '.join(LIMITS)}.")
        for rule in kind.permissions:
            _check_rule(kind, rule)
        enabled, bounds = _sandbox(kind.sandbox)
        self._kinds[name] = kind
        self._cards[name] = DefinitionCard(
            id=name,
            description=description,
            source="code",
            prompt=kind.prompt,
            model=kind.model,
            temperature=kind.temperature,
            tools=None if kind.tools is None else list(kind.tools),
            limits=dict(kind.limits),
            sandbox=enabled,
            sandbox_config=bounds,
            permissions=list(kind.permissions),
            hooks=kind.has_hooks(),
        )

    def make(self, name: str, agent: Instance) -> BaseAgent:
        """For a hook. Raises AppError NOT_FOUND for a kind that no code of this worker knows."""
        kind = self._kinds.get(name)
        if kind is None:
            raise AppError(
                ErrorCode.NOT_FOUND,
                f"No module of agents.registry_modules registers agents of the kind {name!r} in this worker.",
            )
        return kind(agent)

    def given(self, tools: Collection[str]) -> list[DefinitionCard]:
        """The cards, with those tools of theirs that agents are given. Built-in kinds do with what there is.

        Raises AppError INVALID_CONFIG for a tool of another kind that there is not. MCP servers come and go.
        """
        return [_with_tools(card, tools) for card in self.cards]


def load_definitions(settings: AgentsSettings, sandboxes: SandboxSettings | None = None) -> AgentRegistry:
    """Imports the modules. Raises AppError INVALID_CONFIG with what to change, also where a kind's sandbox is to be
    more than the settings give.
    """
    described = (_card(name, definition) for name, definition in settings.definitions.items())
    registry = AgentRegistry([GENERAL, *(_built_in(card) for card in BUILT_IN), *described])
    for name in settings.registry_modules:
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            raise _wrong(
                f"agents.registry_modules names {name!r}, which cannot be imported: {error}. Is its folder in "
                "PYTHONPATH, or its package installed?"
            ) from error
        load_agents = getattr(module, "load_agents", None)
        if not callable(load_agents):
            raise _wrong(f"agents.registry_modules names {name!r}, which has no function load_agents(registry).")
        load_agents(registry)
    for card in registry.cards:
        for field, why in (sandboxes or SandboxSettings()).refused(card.sandbox_config):
            raise _wrong(f"Agents of the kind {card.id!r} cannot have that sandbox: {field} {why}.")
    return registry


def _check_rule(kind: type[BaseAgent], rule: str) -> None:
    try:
        Rule.parse(rule)
    except ValueError as error:
        raise _wrong(f"{kind.__qualname__} has permissions that cannot be read: {error}.") from error


def _built_in(card: DefinitionCard) -> DefinitionCard:
    text = resources.files("workflow.definitions.builtin").joinpath(f"{card.id}.md").read_text("utf-8")
    return replace(card, prompt=text.strip())


def _card(name: str, definition: AgentDefinition) -> DefinitionCard:
    given = definition.model_dump(exclude={"sandbox"})
    limits = {limit: value for limit in LIMITS if (value := given.pop(limit)) is not None}
    enabled, bounds = _sandbox(definition.sandbox)
    return DefinitionCard(id=name, source="config", limits=limits, sandbox=enabled, sandbox_config=bounds, **given)


def _sandbox(said: bool | SandboxBounds) -> tuple[bool, JSON]:
    """Whether it has one, and what bounds it."""
    if isinstance(said, bool):
        return said, {}
    return said.enabled, said.model_dump(exclude_none=True, exclude={"enabled"})


def _with_tools(card: DefinitionCard, there: Collection[str]) -> DefinitionCard:
    if card.tools is None:
        return card
    missing = [name for name in card.tools if name not in there]
    if missing and card.source != "builtin" and not all(name.startswith("mcp__") for name in missing):
        raise _wrong(
            f"Agents of the kind {card.id!r} have the tools {', '.join(missing)}, which agents are not given. Is "
            "tools.enabled right?"
        )
    return replace(card, tools=[name for name in card.tools if name in there])


def _wrong(detail: str) -> AppError:
    return AppError(ErrorCode.INVALID_CONFIG, detail)
