"""Kinds of agents: where they come from, and what is refused before a worker starts."""

from typing import Any

import pytest

from shared.config import AgentDefinition, AgentsSettings, SandboxSettings
from shared.errors import AppError, ErrorCode
from tests.workflow.definitions import clerks
from workflow.definitions import AgentRegistry, BaseAgent, Instance, SandboxBounds
from workflow.definitions.builtin import BUILT_IN
from workflow.definitions.registry import load_definitions
from workflow.llm.known_models import known_models
from workflow.tool.registry import built_in_tools

TOOLS = built_in_tools().names
MODULE = clerks.__name__


def cards(tools: list[str] = TOOLS, **settings: Any) -> dict[str, Any]:
    return {card.id: card for card in load_definitions(AgentsSettings(**settings)).given(tools)}


def test_the_built_in_kinds_have_prompts_of_their_own_and_tools_that_there_are() -> None:
    found = cards()
    assert found.keys() == {"agent", "builder", "chat", "coder", "researcher", "reviewer"}
    prompts = [card.prompt for name, card in found.items() if name != "agent"]
    assert all(prompts)
    assert len(set(prompts)) == 5
    assert {tool for card in BUILT_IN for tool in card.tools or ()} <= set(TOOLS)


def test_built_in_kinds_do_with_the_tools_that_agents_are_given() -> None:
    assert cards(["web_fetch", "ls"])["chat"].tools == ["web_fetch"]


def test_kinds_come_from_code_and_from_the_settings_and_may_replace_built_in_ones() -> None:
    own = {"chat": AgentDefinition(description="Ours.", prompt="Hello.", tools=["ls"], max_cost=1, sandbox=False)}
    found = cards(registry_modules=[MODULE], definitions=own)
    chat, clerk, plain = found["chat"], found["clerk"], found["plain"]
    assert (chat.source, chat.prompt, chat.limits, chat.sandbox) == ("config", "Hello.", {"max_cost": 1}, False)
    assert (clerk.source, clerk.tools, clerk.limits, clerk.hooks) == ("code", ["read_file"], {"max_turns": 4}, True)
    assert (plain.model, plain.hooks, plain.tools) == ("openai/plain", False, None)


def test_a_kind_may_bound_its_calls_and_its_sandbox_and_have_no_more_than_the_settings_give() -> None:
    bounds = SandboxBounds(network="allow", allowed_hosts=["a.test"], processes=64)
    own = {"x": AgentDefinition(description="d", permissions=["bash: deny"], sandbox=bounds)}
    settings = AgentsSettings(definitions=own)
    wide = SandboxSettings(network="open")
    [card] = [card for card in load_definitions(settings, wide).cards if card.id == "x"]
    assert (card.permissions, card.sandbox) == (["bash: deny"], True)
    assert card.sandbox_config == {"network": "allow", "allowed_hosts": ["a.test"], "processes": 64}
    with pytest.raises(AppError, match=r"'x' cannot have that sandbox: allowed_hosts a\.test"):
        load_definitions(settings, SandboxSettings())


class Ruled(BaseAgent):
    permissions = ("bash deny",)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"registry_modules": ["no.such.module"]}, "cannot be imported"),
        ({"registry_modules": ["json"]}, "has no function load_agents"),
        ({"registry_modules": [MODULE, MODULE]}, "two kinds of agents named 'clerk'"),
        ({"definitions": {"x": AgentDefinition(description="d", tools=["hammer"])}}, "the tools hammer"),
    ],
)
def test_what_is_wrong_is_said_before_a_worker_starts(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(AppError, match=words) as refused:
        cards(**settings)
    assert refused.value.code is ErrorCode.INVALID_CONFIG


class Unlimited(BaseAgent):
    limits = {"max_patience": 3}  # noqa: RUF012 - as users write it


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        (object, "x", "no class derived from BaseAgent"),
        (BaseAgent, "a b", "Use letters"),
        (Unlimited, "u", "max_patience"),
        (Ruled, "r", "'bash deny' is no rule"),
    ],
)
def test_a_registration_that_cannot_be_is_refused(kind: Any, name: str, words: str) -> None:
    with pytest.raises(AppError, match=words):
        AgentRegistry().register(kind, name, "d")


def test_tools_of_an_mcp_server_that_is_away_stop_no_worker() -> None:
    own = {"x": AgentDefinition(description="d", tools=["mcp__github__search", "ls"])}
    assert cards(definitions=own)["x"].tools == ["ls"]


def test_hooks_of_a_kind_that_no_code_knows_fail_in_words() -> None:
    with pytest.raises(AppError, match="'coder'"):
        load_definitions(AgentsSettings()).make("coder", Instance("a", "A", "w"))


def test_models_are_known_without_loading_litellm() -> None:
    models = known_models()
    assert {"openai", "anthropic", "ollama", "openrouter", "gemini"} <= set(models.providers)
    assert "gpt-4o" in models.names
    assert "text-embedding-3-small" not in models.names
