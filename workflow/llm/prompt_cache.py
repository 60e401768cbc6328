"""Marks for Anthropic's prompt cache: up to where the next request will begin as this one does.

A request is read in the order tools, system prompt, messages; a mark stores all that stands before it, and finds what
an earlier request stored. The end of the tools and of the system prompt are the same in every request of the thread
(the first even in every thread); the end of the last turn becomes the last but one's in the next request.
https://platform.claude.com/docs/en/build-with-claude/prompt-caching
"""

from collections.abc import Sequence

from shared.types import JSON

MARK = {"type": "ephemeral"}
LEAST_TOKENS = 512
"""The smallest prefix that any of their models stores. A mark on less does no harm, and no good."""
TURNS = 2
"""With the tools' mark and the system prompt's, these make the four that a request may have."""
CHARS_PER_TOKEN = 4


def marked(messages: Sequence[JSON], tools: Sequence[JSON], least_tokens: int) -> tuple[list[JSON], list[JSON]]:
    """The messages and the tools; those that bear a mark are copies. `least_tokens`: what the model stores at least."""
    room = least_tokens * CHARS_PER_TOKEN
    sizes = [len(str(tool)) for tool in tools]
    marks_tools = bool(tools) and sum(sizes) >= room
    room -= sum(sizes)
    places = set(_places(messages))
    marked_messages = []
    for place, message in enumerate(messages):
        room -= _chars(message) if room > 0 else 0
        marked_messages.append({**message, "cache_control": MARK} if place in places and room <= 0 else message)
    marked_tools = [*tools[:-1], {**tools[-1], "cache_control": MARK}] if marks_tools else [*tools]
    return marked_messages, marked_tools


def _places(messages: Sequence[JSON]) -> list[int]:
    """Of the system prompt, and of the ends of the last turns that are not the model's. Blank text takes no mark."""
    system = [place for place, message in enumerate(messages) if message["role"] == "system"][-1:]
    ends: list[int] = []
    for place in range(len(messages) - 1, -1, -1):
        if len(ends) == TURNS:
            break
        ends_here = place + 1 == len(messages) or messages[place + 1]["role"] == "assistant"
        if ends_here and messages[place]["role"] in ("user", "tool"):
            ends.append(place)
    return [place for place in system + ends if messages[place]["content"].strip()]


def _chars(message: JSON) -> int:
    calls = message.get("tool_calls") or ()
    return len(message["content"]) + sum(len(call["function"]["arguments"]) for call in calls)
