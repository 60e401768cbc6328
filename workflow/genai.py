"""OpenTelemetry's semantic conventions for generative AI (1.41.0): every name of theirs that our spans have.

They are in development: names may change with a new version of them, and change here then. That version is the last one
in which they stand beside all others; they have a repository of their own since.
"""

from collections.abc import Sequence
from typing import Any

import orjson

from shared.tracing import Attributes
from shared.types import JSON
from workflow.llm.types import ModelRequest, ModelResponse

AGENT = "invoke_agent"
CHAT = "chat"
TOOL = "execute_tool"

# LiteLLM's word for a provider, where the conventions have another.
_PROVIDERS = {
    "azure": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "vertex_ai": "gcp.vertex_ai",
    "xai": "x_ai",
}


def agent_attributes(name: str | None, thread_id: str, model: str | None) -> Attributes:
    """Of a run of an agent. A thread is their conversation."""
    return {
        "gen_ai.operation.name": AGENT,
        "gen_ai.agent.name": name,
        "gen_ai.conversation.id": thread_id,
        "gen_ai.request.model": model,
    }


def request_attributes(model: str, request: ModelRequest, *, contents: bool) -> Attributes:
    prefix, slash, name = model.partition("/")
    return {
        "gen_ai.operation.name": CHAT,
        "gen_ai.provider.name": _PROVIDERS.get(prefix, prefix) if slash else None,
        "gen_ai.request.model": name if slash else model,
        "gen_ai.request.temperature": request.temperature,
        "gen_ai.request.max_tokens": request.max_output_tokens,
        "gen_ai.conversation.id": request.cache_key,
        "gen_ai.input.messages": _text([_message(each) for each in request.messages]) if contents else None,
    }


def response_attributes(response: ModelResponse, first_seconds: float | None, *, contents: bool) -> Attributes:
    usage = response.usage
    return {
        "gen_ai.response.finish_reasons": [response.finish_reason],
        "gen_ai.response.time_to_first_chunk": first_seconds,
        "gen_ai.usage.input_tokens": usage.input_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
        "gen_ai.usage.cache_creation.input_tokens": usage.cache_write_tokens,
        "gen_ai.output.messages": _text([_message(response.as_message(), response)]) if contents else None,
    }


def tool_attributes(name: str, call_id: str, arguments: str, *, contents: bool) -> Attributes:
    return {
        "gen_ai.operation.name": TOOL,
        "gen_ai.tool.name": name,
        "gen_ai.tool.call.id": call_id,
        "gen_ai.tool.type": "function",
        "gen_ai.tool.call.arguments": arguments if contents else None,
    }


def result_attributes(content: str, *, contents: bool) -> Attributes:
    return {"gen_ai.tool.call.result": content if contents else None}


def _message(message: JSON, response: ModelResponse | None = None) -> JSON:
    """One of ours, which are as OpenAI has them, in parts."""
    if message["role"] == "tool":
        answer = {"type": "tool_call_response", "id": message["tool_call_id"], "response": message["content"]}
        return {"role": "tool", "parts": [answer]}
    parts: list[JSON] = [{"type": "text", "content": message["content"]}] if message.get("content") else []
    for call in message.get("tool_calls") or ():
        function = call["function"]
        parts.append(
            {"type": "tool_call", "id": call["id"], "name": function["name"], "arguments": function["arguments"]}
        )
    ending = {"finish_reason": response.finish_reason} if response else {}
    return {"role": message["role"], "parts": parts, **ending}


def _text(messages: Sequence[Any]) -> str:
    return orjson.dumps(messages).decode()
