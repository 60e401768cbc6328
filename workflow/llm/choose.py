"""Which model to use. Choosing is cheap (the start-up banner does it); building loads LiteLLM and is for workers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
from pydantic import SecretStr

from shared.config import LlmSettings
from workflow.llm.client import LiteLLMModel, ModelOptions
from workflow.llm.demo import DEMO, HOW_TO_SET_A_REAL_ONE, DemoModel
from workflow.llm.types import Model

OLLAMA = "http://127.0.0.1:11434"
PROBE_SECONDS = 0.3


@dataclass(frozen=True)
class Provider:
    prefix: str
    key_variable: str
    default_model: str


# In the order in which their keys are looked for. Defaults: each provider's current general model in LiteLLM 1.106's
# price list; for Anthropic the newest Sonnet. Where a provider keeps an alias for its latest model, the alias.
PROVIDERS = (
    Provider("anthropic", "ANTHROPIC_API_KEY", "anthropic/claude-sonnet-5-5"),
    Provider("openai", "OPENAI_API_KEY", "openai/gpt-6.1-sol"),
    Provider("gemini", "GEMINI_API_KEY", "gemini/gemini-pro-latest"),
    Provider("mistral", "MISTRAL_API_KEY", "mistral/mistral-medium-latest"),
    Provider("groq", "GROQ_API_KEY", "groq/openai/gpt-oss-120b"),
    Provider("deepseek", "DEEPSEEK_API_KEY", "deepseek/deepseek-v4-pro"),
    Provider("xai", "XAI_API_KEY", "xai/grok-4.7"),
    Provider("openrouter", "OPENROUTER_API_KEY", "openrouter/openrouter/auto"),
)


@dataclass(frozen=True)
class Chosen:
    """A model, not yet built. `why` is half a sentence for the banner: "ANTHROPIC_API_KEY is set"."""

    name: str
    why: str
    api_key: SecretStr | None = field(default=None, repr=False)
    base_url: str | None = None
    key_variable: str = "TRUNKLINE__LLM__API_KEY"

    @property
    def is_demo(self) -> bool:
        return self.name == DEMO

    @property
    def how_to_set_a_real_one(self) -> str | None:
        """What to tell a person who has got the demo; None where the model is real."""
        return HOW_TO_SET_A_REAL_ONE if self.is_demo else None


def choose_model(settings: LlmSettings, environ: Mapping[str, str], name: str | None = None) -> Chosen:
    """`name` (an agent's or a request's own) goes before the settings' model.

    Asks servers on the network, for 0.3 s at most each, only where no name and no key says what to use.
    """
    if named := name or settings.model:
        return _named(named, settings, environ, "the request names it" if name else "llm.model is set")
    if settings.base_url:
        return _served_at(settings.base_url, settings, environ)
    for provider in PROVIDERS:
        if environ.get(provider.key_variable, "").strip():
            return _named(provider.default_model, settings, environ, f"{provider.key_variable} is set")
    return _ollama(settings) or Chosen(DEMO, "no model is set, no provider's key, and no Ollama answers")


def build_model(chosen: Chosen, settings: LlmSettings) -> Model:
    """The model itself. Raises AppError (invalid_config) for a name that LiteLLM cannot place."""
    if chosen.is_demo:
        return DemoModel()
    return LiteLLMModel(
        ModelOptions(
            name=chosen.name,
            api_key=chosen.api_key,
            base_url=chosen.base_url,
            context_tokens=settings.context_tokens,
            timeout_seconds=settings.timeout_seconds,
            how_to_set_key=f"Set {chosen.key_variable}.",
        )
    )


def _named(name: str, settings: LlmSettings, environ: Mapping[str, str], why: str) -> Chosen:
    if name == DEMO:
        return Chosen(DEMO, why)
    if settings.base_url:
        # A provider's key from the environment stays away from other people's servers; most want none.
        return Chosen(name, why, settings.api_key or SecretStr("none"), settings.base_url)
    # One provider's key is not shown to another.
    api_key = settings.api_key if settings.model is None or _prefix(name) == _prefix(settings.model) else None
    for provider in PROVIDERS:
        if name.startswith(f"{provider.prefix}/"):
            key = environ.get(provider.key_variable, "").strip()
            return Chosen(name, why, api_key or (SecretStr(key) if key else None), key_variable=provider.key_variable)
    return Chosen(name, why, api_key)


def _prefix(name: str) -> str:
    """The provider that a name says; empty where LiteLLM has to find it out."""
    return name.partition("/")[0] if "/" in name else ""


def _served_at(base_url: str, settings: LlmSettings, environ: Mapping[str, str]) -> Chosen:
    """The first model that an OpenAI-compatible server lists; servers of a single one ignore the name."""
    key = settings.api_key.get_secret_value() if settings.api_key else "none"
    models = _get(f"{base_url}/models", {"Authorization": f"Bearer {key}"}).get("data") or [{"id": "default"}]
    return _named(f"openai/{models[0]['id']}", settings, environ, f"llm.base_url is set to {base_url}")


def _ollama(settings: LlmSettings) -> Chosen | None:
    # OLLAMA_HOST may be the address that Ollama listens on.
    host = (settings.ollama_host or OLLAMA).replace("//0.0.0.0", "//127.0.0.1")
    models = _get(f"{host}/api/tags", {}).get("models") or []
    if not models:
        return None
    # Through its OpenAI-compatible half: LiteLLM's own Ollama client asks the server about the model before each call,
    # and blocks the event loop meanwhile.
    name = f"openai/{models[0]['name']}"
    return Chosen(name, f"Ollama answers at {host}", SecretStr("ollama"), f"{host}/v1")


def _get(url: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """A JSON object; an empty one where nothing answers as it should."""
    try:
        answer = httpx.get(url, headers=headers, timeout=PROBE_SECONDS, trust_env=False).raise_for_status().json()
    except (httpx.HTTPError, ValueError):
        return {}
    return answer if isinstance(answer, dict) else {}
