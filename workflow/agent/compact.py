"""Makes room in the model's context, before it is full.

The older part of the conversation is given to the model to be summed up, as a durable step whose summary is appended to
the thread: this run goes on from it, after a crash too, and so do later runs. What is too long even then are results of
tools in the newest part: they are shortened, for this run's eyes only.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict

import orjson

from shared.errors import AppError, ErrorCode
from shared.types import JSON, EventType
from workflow.agent.ask import Asker
from workflow.agent.budget import RunBudget
from workflow.agent.context import Window, clipped, estimate_tokens, fitted, read_prompt
from workflow.agent.conversation import Conversation, Older
from workflow.engine.journal import Journal, StepSpec
from workflow.engine.scope import Outcome, StepScope
from workflow.llm.pool import Try
from workflow.llm.types import ModelRequest, TextDelta, ThinkingDelta, Usage

KEPT_SHARE = 0.25
"""Of the usable context: the newest part, which is not summed up."""
WORTH_SHARE = 0.05
"""Of the usable context: less than that is not summed up before it has to be."""
SUMMARY_SHARE = 0.1
"""Of the usable context: the longest summary."""
STANDING_SHARE = 0.05
"""Of the usable context: the longest plan and list of todos that are added to a summary."""
SLACK_SHARE = 0.05
"""Of the usable context: freed beyond need where results are shortened, so that the next turn need not do it again."""
READ_SHARE = 0.75
"""Of the usable context: what a summary is made of. An estimate may be a quarter below the truth."""
CLIPS = (100_000, 8_000, 2_000, 500, 200)
"""Characters of each message that the summary is made of: the most with which all of them fit."""


class Compactor:
    """Of one attempt.

    `compact_at`: the share of the usable context from which on room is made. `standing`: what the model must still read
    afterwards, word for word.
    """

    def __init__(
        self,
        journal: Journal,
        asker: Asker,
        budget: RunBudget,
        window: Window,
        *,
        compact_at: float,
        standing: Callable[[], str],
    ) -> None:
        self._journal = journal
        self._asker = asker
        self._budget = budget
        self._window = window
        self._compact_at = compact_at
        self._standing = standing

    async def make_room(self, turn: int, conversation: Conversation) -> None:
        """For a turn of the model. Raises AppError CONTEXT_EXCEEDED where nothing helps, and as a turn does."""
        if self._is_due(turn, conversation):
            await self._sum_up(turn, conversation)
        excess = self._window.used(conversation.tokens) - self._window.usable
        if excess > 0:
            conversation.shorten(excess + int(SLACK_SHARE * self._window.usable))
        thought = self._journal.known(f"llm:{turn}")
        if self._window.used(conversation.tokens) > self._window.usable and not (thought and thought.finished):
            raise self._window.exceeded(conversation.tokens)

    def _is_due(self, turn: int, conversation: Conversation) -> bool:
        """A turn that was begun sees again what it saw, whatever the settings are now."""
        if self._journal.known(f"compact:{turn}") is not None:
            return True
        used, usable = self._window.used(conversation.tokens), self._window.usable
        if used <= self._compact_at * usable or self._journal.known(f"llm:{turn}") is not None:
            return False
        older = self._older(conversation)
        return older is not None and (older.tokens >= WORTH_SHARE * usable or used > usable)

    def _older(self, conversation: Conversation) -> Older | None:
        """Beside it there must be room for the task and the summary, so that this need not be done again at once."""
        usable = self._window.usable
        left = (self._compact_at - SUMMARY_SHARE - STANDING_SHARE) * usable - self._window.used(
            conversation.task_tokens
        )
        return conversation.older(int(max(0, min(KEPT_SHARE * usable, left))))

    async def _sum_up(self, turn: int, conversation: Conversation) -> None:
        async def body(scope: StepScope) -> Outcome:
            older = self._older(conversation) or conversation.older(0)
            assert older is not None
            text, usage = await self._summary_of(older, scope)
            standing = fitted(self._standing(), int(STANDING_SHARE * self._window.usable))
            summary = conversation.summary(f"{text}\n\n{standing}".strip(), older)
            return Outcome(
                {"summary": summary, "until": older.until, "usage": asdict(usage)},
                messages=[summary],
                events=[(EventType.LOG, {"level": "info", "message": _told(older)})],
                run={"usage": orjson.dumps(self._budget.usage_with(usage))},
            )

        spec = StepSpec(f"compact:{turn}", "compact", "compact", {"messages": conversation.count})
        done = await self._asker.perform(spec, body, purpose="compact")
        self._budget.count(Usage(**done["usage"]))
        conversation.sum_up(done["summary"], done["until"])

    async def _summary_of(self, older: Older, scope: StepScope) -> tuple[str, Usage]:
        system = {"role": "system", "content": read_prompt("compact")}
        room = int(READ_SHARE * self._window.usable) - estimate_tokens([system])
        request = ModelRequest([system, transcript(older.messages, room)], max_output_tokens=self._window.answer)

        async def on_delta(_: TextDelta | ThinkingDelta) -> None:
            """A summary is the model's own note: it is not streamed."""

        async def on_retry(again: Try) -> None:
            await scope.emit([(EventType.AGENT_REQUEST, {**again.as_json(), "purpose": "compact"})])

        tokens = estimate_tokens(request.messages)
        response = await self._asker.complete(scope, request, input_tokens=tokens, on_delta=on_delta, on_retry=on_retry)
        if not response.content.strip():
            raise AppError(
                ErrorCode.CONTEXT_EXCEEDED,
                "The conversation is too long for the model's context, and the model gave no summary of its older "
                "part. Retry the run, choose another model, or begin a new thread.",
            )
        return fitted(response.content.strip(), int(SUMMARY_SHARE * self._window.usable)), response.usage


def transcript(messages: Sequence[JSON], room: int) -> JSON:
    """The messages as one, for the model to read and not to follow; of at most so many tokens."""
    names = {call["id"]: call["function"]["name"] for message in messages for call in message.get("tool_calls") or ()}
    for clip in CLIPS:
        message = _fenced("\n\n".join(_told_message(message, names, clip) for message in messages))
        if estimate_tokens([message]) <= room:
            return message
    return {**message, "content": fitted(message["content"], room)}


def _fenced(text: str) -> JSON:
    text = text.replace("</conversation", "<\\/conversation")
    return {"role": "user", "content": f"<conversation>\n{text}\n</conversation>\n\nWrite the summary of it now."}


def _told_message(message: JSON, names: dict[str, str], clip: int) -> str:
    content = clipped(message["content"], clip)
    if message["role"] == "tool":
        return f"[result of {names.get(message['tool_call_id'], 'a tool')}]\n{content}"
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    told = [f"[calls {call['name']} with {clipped(call['arguments'], clip)}]" for call in calls]
    return "\n".join([f"[{message['role']}]", *([content] if content else []), *told])


def _told(older: Older) -> str:
    return f"The conversation was getting long: {len(older.messages)} older messages were summed up for the model."
