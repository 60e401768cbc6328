"""What waits for people, and their answers."""

import json
from enum import StrEnum
from typing import Annotated, Any

import typer

from trunkline.commands.common import AsJson, StepId, parsed, show_json, show_rows
from trunkline.models import Step
from trunkline.sync.client import Trunkline

Comment = Annotated[str | None, typer.Option("--comment", help="What the agent should know about it.")]


class Outcome(StrEnum):
    REPEAT = "repeat"
    DONE = "done"
    FAILED = "failed"


def approvals(client: Trunkline, as_json: AsJson = False) -> None:
    """List what waits for people, oldest first."""
    found = list(client.approvals.list())
    rows = ({"step": each.id, "waits for": _kind(each), "asked": _asked(each)} for each in found)
    show_rows(found, rows, as_json=as_json, none="Nothing waits for people.")


def approve(
    client: Trunkline,
    step_id: StepId,
    comment: Comment = None,
    as_json: AsJson = False,
) -> None:
    """Say yes to a step that waits for approval."""
    _tell(client.steps.human_complete(step_id, _answer(True, comment)), as_json=as_json)


def reject(
    client: Trunkline,
    step_id: StepId,
    comment: Comment = None,
    as_json: AsJson = False,
) -> None:
    """Say no to a step that waits for approval."""
    _tell(client.steps.human_complete(step_id, _answer(False, comment)), as_json=as_json)


def answer(
    client: Trunkline,
    step_id: StepId,
    output: Annotated[str, typer.Argument(help="The answer: JSON, or a text as it is.")],
    as_json: AsJson = False,
) -> None:
    """Answer a step that waits for a human, in other words than yes or no."""
    _tell(client.steps.human_complete(step_id, parsed(output)), as_json=as_json)


def resolve(
    client: Trunkline,
    step_id: StepId,
    outcome: Annotated[Outcome, typer.Argument(help="Do it again, take it as done, or as failed.")],
    output: Annotated[str | None, typer.Option(help="Of what is done: JSON, or a text as it is.")] = None,
    as_json: AsJson = False,
) -> None:
    """Settle a step whose outcome nobody knows."""
    given = None if output is None else parsed(output)
    _tell(client.steps.resolve(step_id, outcome.value, output=given), as_json=as_json)


def publish(
    client: Trunkline,
    name: Annotated[str, typer.Argument(help="What durable code waits for.")],
    payload: Annotated[str | None, typer.Argument(help="JSON, or a text as it is.")] = None,
    event_key: Annotated[str | None, typer.Option("--for", help="Only for who waits with this key.")] = None,
    run_id: Annotated[str | None, typer.Option("--run", help="Only for this run.")] = None,
) -> None:
    """Publish an event. Shows its id."""
    said = None if payload is None else parsed(payload)
    typer.echo(client.events.publish(name, said, key=event_key, run_id=run_id).event_id)


def _answer(approved: bool, comment: str | None) -> dict[str, Any]:
    return {"approved": approved, **({"comment": comment} if comment else {})}


def _tell(step: Step, *, as_json: bool) -> None:
    show_json(step) if as_json else typer.echo(f"{step.id} {step.status}")


def _kind(step: Step) -> str:
    kind = step.wait.kind if step.wait else ""
    return {"human": "an answer", "outcome": "resolve"}.get(kind, kind)


def _asked(step: Step) -> str:
    request = step.wait.request if step.wait else None
    if isinstance(request, dict) and "question" in request:
        request = request["question"]
    return (request if isinstance(request, str) else json.dumps(request, ensure_ascii=False))[:100]
