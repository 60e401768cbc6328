"""An agent's words, out of a run's events. Does no I/O."""

from dataclasses import dataclass

from trunkline.models import Event

BEGINS_ANEW = ("agent.request", "run.resumed")


@dataclass(frozen=True)
class Delta:
    """A piece of text. `restarts`: what the model has said since its last finished turn is void and said anew."""

    text: str
    step_id: str | None
    restarts: bool = False


class Deltas:
    """Given a run's events in their order, its pieces of text. A turn is void where the model had to be asked again."""

    def __init__(self) -> None:
        self._unfinished = False
        self._void = False

    def of(self, event: Event) -> Delta | None:
        if event.type == "agent.response":
            self._unfinished = self._void = False
        elif event.type in BEGINS_ANEW and not event.data.get("purpose"):
            self._void = self._unfinished
        elif event.type == "agent.delta":
            restarts, self._unfinished, self._void = self._void, True, False
            return Delta(event.data.get("text") or "", event.step_id, restarts)
        return None
