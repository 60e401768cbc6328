"""Messages that were put into a run while it went on: taken in before a turn of the model, as a durable step."""

from shared.threads.attempt import Attempt
from shared.types import JSON
from workflow.engine.journal import StepSpec
from workflow.engine.scope import Outcome, StepScope
from workflow.engine.step import Step


class Inbox:
    """Of one attempt."""

    def __init__(self, attempt: Attempt, step: Step) -> None:
        self._attempt = attempt
        self._step = step

    @property
    def waiting(self) -> bool:
        """Whether there are messages that were not taken in yet."""
        return self._attempt.inbox > self._attempt.taken

    async def take(self, turn: int) -> list[JSON]:
        """The messages that come before this turn. What a turn that was begun did not see, it does not see now."""
        known, key = self._step.journal.known, f"inbox:{turn}"
        begun = known(f"llm:{turn}") or known(f"compact:{turn}")
        if known(key) is None and (begun or not self.waiting):
            return []

        async def body(_: StepScope) -> Outcome:
            found = await self._step.waits.inbox(self._attempt.taken)
            count = self._attempt.taken + len(found)
            taken = {"run_id": self._attempt.run.id, "taken": count, "messages": found}
            return Outcome(taken, messages=found, run={"taken": count})

        taken = await self._step.perform(StepSpec(key, "inbox", "inbox"), body)
        if taken["run_id"] == self._attempt.run.id:  # a retried run begins with another one's steps
            self._attempt.taken = taken["taken"]
        messages: list[JSON] = taken["messages"]
        return messages
