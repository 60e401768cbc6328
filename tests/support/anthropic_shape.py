"""What the scripted model server says to those who speak Anthropic's Messages API (POST /v1/messages, streamed)."""

import json
from collections.abc import Iterator
from typing import Any

JSON = dict[str, Any]
STOP_REASONS = {"stop": "end_turn", "tool_calls": "tool_use", "length": "max_tokens"}


def frames(text: list[str], thinking: list[str], calls: list[JSON], usage: JSON) -> Iterator[bytes]:
    """A message up to its end: `calls` are {id, name, arguments (JSON text)}, `usage` is in Anthropic's words."""
    message: JSON = {"id": "msg_1", "type": "message", "role": "assistant", "model": "scripted", "content": []}
    message |= {"stop_reason": None, "stop_sequence": None, "usage": {**usage, "output_tokens": 1}}
    yield frame({"type": "message_start", "message": message})
    blocks: list[tuple[JSON, list[JSON]]] = []
    if thinking:
        deltas = [{"type": "thinking_delta", "thinking": piece} for piece in thinking]
        blocks.append(({"type": "thinking", "thinking": ""}, deltas))
    if text:
        blocks.append(({"type": "text", "text": ""}, [{"type": "text_delta", "text": piece} for piece in text]))
    for call in calls:
        block = {"type": "tool_use", "id": call["id"], "name": call["name"], "input": {}}
        blocks.append((block, [{"type": "input_json_delta", "partial_json": call["arguments"]}]))
    for index, (block, deltas) in enumerate(blocks):
        yield frame({"type": "content_block_start", "index": index, "content_block": block})
        yield from (frame({"type": "content_block_delta", "index": index, "delta": delta}) for delta in deltas)
        yield frame({"type": "content_block_stop", "index": index})


def end(finish: str, usage: JSON) -> bytes:
    delta = {"stop_reason": STOP_REASONS[finish], "stop_sequence": None}
    last = {"type": "message_delta", "delta": delta, "usage": {"output_tokens": usage["output_tokens"]}}
    return frame(last) + frame({"type": "message_stop"})


def error(message: str, kind: str = "api_error") -> JSON:
    return {"type": "error", "error": {"type": kind, "message": message}}


def frame(event: JSON) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def as_openai(messages: list[JSON]) -> list[JSON]:
    """The messages with tool results as messages of their own, as far as the markers in them matter."""
    flat: list[JSON] = []
    for message in messages:
        blocks = message["content"] if isinstance(message["content"], list) else [{"type": "text", **message}]
        results = [block for block in blocks if block["type"] == "tool_result"]
        flat += [{"role": "tool", "content": ""} for _ in results]
        if len(results) < len(blocks):
            flat.append({"role": message["role"], "content": blocks if results else message["content"]})
    return flat
