"""Which model is used, from settings, the environment and what answers."""

import http.server
import json
import threading
from collections.abc import Callable, Iterator

import pytest

from shared.config import LlmSettings
from tests.support.ports import free_port
from workflow.llm.choose import PROVIDERS, Chosen, build_model, choose_model
from workflow.llm.client import LiteLLMModel, load_litellm
from workflow.llm.demo import DemoModel

Serve = Callable[[object], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server that answers every GET with one JSON value; returns its root URL."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def start(answer: object) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def settings(**values: object) -> LlmSettings:
    """With no Ollama, unless the test has one."""
    return LlmSettings.model_validate({"ollama_host": f"http://127.0.0.1:{free_port()}", **values})


def key_of(chosen: Chosen) -> str | None:
    return chosen.api_key.get_secret_value() if chosen.api_key else None


def test_the_settings_model_goes_before_all_else() -> None:
    chosen = choose_model(settings(model="mistral/some"), {"ANTHROPIC_API_KEY": "a", "MISTRAL_API_KEY": "m"})
    assert (chosen.name, key_of(chosen), chosen.is_demo) == ("mistral/some", "m", False)


def test_one_providers_key_is_not_shown_to_another() -> None:
    named = settings(model="anthropic/some", api_key="for-anthropic")
    assert key_of(choose_model(named, {})) == "for-anthropic"
    assert key_of(choose_model(named, {}, "anthropic/other")) == "for-anthropic"
    assert key_of(choose_model(named, {"OPENAI_API_KEY": "o"}, "openai/other")) == "o"
    assert key_of(choose_model(named, {}, "openai/other")) is None
    assert key_of(choose_model(named, {}, "azure/other")) is None


def test_a_name_of_the_requests_own_goes_before_the_settings() -> None:
    assert choose_model(settings(model="mistral/some"), {}, "openai/other").name == "openai/other"


@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda provider: provider.prefix)
def test_a_providers_key_chooses_its_model(provider: object) -> None:
    prefix, variable, model = provider.prefix, provider.key_variable, provider.default_model  # type: ignore[attr-defined]
    chosen = choose_model(settings(), {variable: "secret"})
    assert (chosen.name, key_of(chosen), chosen.why) == (model, "secret", f"{variable} is set")
    assert model.startswith(f"{prefix}/")
    assert "secret" not in repr(chosen)


def test_anthropic_comes_first_and_an_empty_key_is_none() -> None:
    keys = {"OPENAI_API_KEY": "o", "ANTHROPIC_API_KEY": "a"}
    assert choose_model(settings(), keys).name.startswith("anthropic/claude-sonnet")
    assert choose_model(settings(), {**keys, "ANTHROPIC_API_KEY": " "}).name.startswith("openai/")


def test_litellm_knows_every_default_model() -> None:
    prices = load_litellm().model_cost
    for provider in PROVIDERS:
        name = provider.default_model
        known = name in prices or name.partition("/")[2] in prices
        assert known or provider.prefix == "openrouter", f"{name} is not in LiteLLM's list"


def test_a_settings_key_goes_before_the_environments() -> None:
    assert key_of(choose_model(settings(model="openai/x", api_key="mine"), {"OPENAI_API_KEY": "theirs"})) == "mine"


def test_a_base_url_alone_takes_the_servers_first_model(serve: Serve) -> None:
    base_url = f"{serve({'data': [{'id': 'qwen-9'}, {'id': 'other'}]})}/v1"
    chosen = choose_model(settings(base_url=base_url), {"ANTHROPIC_API_KEY": "a"})
    assert (chosen.name, chosen.base_url) == ("openai/qwen-9", base_url)


def test_a_base_url_that_lists_nothing_gets_a_name_that_single_models_ignore() -> None:
    chosen = choose_model(settings(base_url=f"http://127.0.0.1:{free_port()}/v1"), {})
    assert chosen.name == "openai/default"


def test_the_environments_key_is_not_sent_to_another_server() -> None:
    chosen = choose_model(settings(model="openai/x", base_url="http://127.0.0.1:1/v1"), {"OPENAI_API_KEY": "theirs"})
    assert key_of(chosen) == "none"


def test_an_ollama_that_answers_is_used(serve: Serve) -> None:
    host = serve({"models": [{"name": "llama3.2:3b"}, {"name": "other"}]})
    chosen = choose_model(settings(ollama_host=host), {})
    assert (chosen.name, chosen.base_url, chosen.why) == (
        "openai/llama3.2:3b",
        f"{host}/v1",
        f"Ollama answers at {host}",
    )


@pytest.mark.parametrize("answer", [{"models": []}, {}, [], "no"])
def test_an_ollama_without_models_is_not(serve: Serve, answer: object) -> None:
    assert choose_model(settings(ollama_host=serve(answer)), {}).is_demo


def test_with_nothing_there_is_the_demo_and_how_to_do_better() -> None:
    chosen = choose_model(settings(), {})
    assert chosen.is_demo
    assert "ANTHROPIC_API_KEY" in (chosen.how_to_set_a_real_one or "")
    assert isinstance(build_model(chosen, settings()), DemoModel)


def test_the_demo_can_be_asked_for() -> None:
    chosen = choose_model(settings(model="demo", base_url="http://127.0.0.1:1/v1"), {"ANTHROPIC_API_KEY": "a"})
    assert (chosen.is_demo, chosen.base_url) == (True, None)


def test_a_real_model_is_built_with_its_settings() -> None:
    given = settings(model="openai/x", context_tokens=4_321)
    model = build_model(choose_model(given, {"OPENAI_API_KEY": "o"}), given)
    assert isinstance(model, LiteLLMModel)
    assert (model.name, model.context_tokens) == ("openai/x", 4_321)
