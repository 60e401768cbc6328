"""A run's conversation as its model reads it. Adding a message costs what the message costs, however long it grows.

It is always in the shape that providers insist on: each tool call followed at once by its one result. A run that was
canceled or failed leaves calls without results, and a failed model can leave an empty answer.

Where an older part was summed up, a message of the thread says so: it has the summary as its `content`, and under
`compaction` where the thread's messages go on `from`, and which `task` stands before that. The model reads the summary,
the task, and what is not summed up.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shared.types import JSON
from workflow.agent.context import CHARS_PER_TOKEN, clipped, estimate_tokens

NO_RESULT = "No result: the run ended before this call had one. It may or may not have taken effect."
SUMMARY = (
    "A summary of the conversation up to here. Older messages were left out to make room; this is what they came to:"
)
FIELDS = {
    "system": ("role", "content"),
    "user": ("role", "content"),
    "assistant": ("role", "content", "tool_calls"),
    "tool": ("role", "content", "tool_call_id"),
}
SHORT_RESULTS = (2_000, 200)
"""Characters that a tool's result keeps at least when room must be made: at first, and where that is not enough."""
NOWHERE = -1


@dataclass(frozen=True, slots=True)
class Older:
    """The part of a conversation that can be summed up, its tokens, and the number of the message that follows it."""

    messages: list[JSON]
    tokens: int
    until: int


class Conversation:
    """`messages`: the thread's, up to the run's task, which is the last of them.

    A message's number is its place among them and those that the run adds. It is its place in the thread as well, but
    for a retried run whose thread has gone on without it: after the first `own`, `others` stand between.
    """

    def __init__(self, messages: Sequence[JSON], *, own: int = 0, others: int = 0) -> None:
        self.count = 0
        self.tokens = 0
        self.last: JSON = {}
        self._own = own
        self._others = others
        self._task = len(messages) - 1
        self._call_ids: set[str] = set()
        self._results: dict[str, JSON] = {}
        self._forget()
        self._read(messages)

    def add(self, message: JSON) -> None:
        """A tool's result takes its place after its call, wherever it comes."""
        self._append(message, self.count)
        self.count += 1
        self.last = message

    def extend(self, messages: Iterable[JSON]) -> None:
        for message in messages:
            self.add(message)

    def sent(self) -> list[JSON]:
        """As a request has them."""
        return self._sent.copy()

    @property
    def task_tokens(self) -> int:
        return self._tokens[self._numbers.index(self._task)]

    def knows_call(self, call_id: str) -> bool:
        """Whether a call of that id was ever made in the thread, be it summed up or not."""
        return call_id in self._call_ids

    def older(self, keep_tokens: int) -> Older | None:
        """All but the run's task and the newest messages: what fits in so many tokens, at least the last turn."""
        cut, kept = len(self._sent), 0
        for place in range(len(self._sent) - 1, -1, -1):
            kept += self._tokens[place]
            if self._sent[place]["role"] != "tool":
                if kept > keep_tokens and cut < len(self._sent):
                    break
                cut = place
        places = [place for place in range(cut) if self._numbers[place] != self._task]
        fresh = sum(self._tokens[place] for place in places if place > 0 or not self._summed_up)
        if fresh == 0:
            return None
        return Older([self._sent[place] for place in places], fresh, self._numbers[cut])

    def summary(self, text: str, older: Older) -> JSON:
        """The message that stands for the older part, for the thread."""
        task = self._place_of(self._task) if self._task < older.until else None
        compaction = {"from": self._place_of(older.until), "task": task}
        return {"role": "user", "content": f"{SUMMARY}\n\n{text}", "compaction": compaction}

    def sum_up(self, summary: JSON, until: int) -> None:
        """The summary takes the place of what stands before the message of that number."""
        cut = self._numbers.index(until)
        task = [self._numbers.index(self._task)] if self._task in self._numbers[:cut] else []
        kept = [(self._sent[place], self._numbers[place]) for place in (*task, *range(cut, len(self._sent)))]
        self._forget()
        self._summed_up = True
        self._append(summary, self.count)
        self.count += 1
        for message, number in kept:
            self._put(message, number)

    def shorten(self, tokens: int) -> None:
        """Frees so many, if long results of tools can give them: the oldest first, none more than it must."""
        for least in SHORT_RESULTS:
            for place, message in enumerate(self._sent):
                if tokens <= 0:
                    return
                if message["role"] == "tool" and len(message["content"]) > least + 100:
                    keep = max(least, len(message["content"]) - tokens * CHARS_PER_TOKEN - 100)
                    before = self._tokens[place]
                    self._replace(place, {**message, "content": clipped(message["content"], keep)})
                    tokens -= before - self._tokens[place]

    def _read(self, messages: Sequence[JSON]) -> None:
        for message in messages:
            self._call_ids.update(call["id"] for call in message.get("tool_calls") or ())
        start = next((i for i in range(len(messages) - 1, -1, -1) if "compaction" in messages[i]), None)
        order: Iterable[int] = range(len(messages))
        if start is not None:
            begins, task = messages[start]["compaction"]["from"], messages[start]["compaction"]["task"]
            order = (start, *([] if task is None else [task]), *range(begins, start), *range(start + 1, len(messages)))
            self._summed_up = True
        for number in order:
            self._append(messages[number], number)
        self.count = len(messages)
        self.last = messages[-1] if messages else {}

    def _forget(self) -> None:
        self._summed_up = False
        self._sent: list[JSON] = []
        self._tokens: list[int] = []
        self._numbers: list[int] = []
        self._open: dict[str, int] = {}
        self.tokens = 0

    def _append(self, message: JSON, number: int) -> None:
        if message["role"] == "tool":
            result = _sent(message)
            if (place := self._open.get(message["tool_call_id"])) is not None:
                self._replace(place, result)
            else:
                self._results[message["tool_call_id"]] = result
            return
        calls = message.get("tool_calls") or ()
        if message["role"] == "assistant" and not message.get("content") and not calls:
            return
        self._put(_sent(message), number)
        for call in calls:
            self._call_ids.add(call["id"])
            missing = {"role": "tool", "tool_call_id": call["id"], "content": NO_RESULT}
            self._put(self._results.get(call["id"], missing), NOWHERE)

    def _put(self, message: JSON, number: int) -> None:
        if message["role"] == "tool":
            self._open[message["tool_call_id"]] = len(self._sent)
        self._sent.append(message)
        self._numbers.append(number)
        self._tokens.append(estimate_tokens([message]))
        self.tokens += self._tokens[-1]

    def _replace(self, place: int, message: JSON) -> None:
        self._sent[place] = message
        self.tokens -= self._tokens[place]
        self._tokens[place] = estimate_tokens([message])
        self.tokens += self._tokens[place]

    def _place_of(self, number: int) -> int:
        return number if number < self._own else number + self._others


def _sent(message: JSON) -> JSON:
    """The fields that providers know; ours stay here."""
    return {name: message[name] for name in FIELDS[message["role"]] if name in message}
