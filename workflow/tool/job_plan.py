"""Tells the user what the agent is going to do, and asks for their approval where that is wanted."""

from enum import StrEnum
from typing import Any, ClassVar

from pydantic import ConfigDict, Field

from shared.types import JSON
from workflow.tool.approval import meaning
from workflow.tool.base import Args, Effect, Question, Tool, ToolContext, ToolResult
from workflow.tool.memory import Memory
from workflow.tool.planning import plan_lines, with_ids

SUBSTANCE = ("title", "summary", "assumptions", "questions")


class PlanStatus(StrEnum):
    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    SKIPPED = "skipped"


class PlanStep(Args):
    model_config = ConfigDict(coerce_numbers_to_str=True)

    id: str | None = Field(None, max_length=50, description="Its id in the plan. Default: a number.")
    title: str = Field(min_length=1, max_length=200, description="What is done in it.")
    detail: str | None = Field(None, max_length=2_000, description="How, where that is not plain.")
    status: PlanStatus = Field(PlanStatus.PENDING, description="How far it is (default pending).")


class JobPlanArgs(Args):
    title: str = Field(min_length=1, max_length=200, description="The job, in one line.")
    summary: str | None = Field(None, max_length=4_000, description="What will have come of it, and the way there.")
    steps: list[PlanStep] = Field(min_length=1, max_length=30, description="The steps, in order.")
    assumptions: list[str] = Field(
        default_factory=list, max_length=20, description="What you take for granted and the task does not say."
    )
    questions: list[str] = Field(default_factory=list, max_length=20, description="What only the user can say.")
    needs_approval: bool = Field(
        False, description="Wait until the user approves of it: where the user asked for that, or much is at stake."
    )


class JobPlanTool(Tool[JobPlanArgs]):
    """`always_asks`: each new plan needs approval, whatever the model says."""

    name: ClassVar[str] = "job_plan"
    effect: ClassVar[Effect] = Effect.IDEMPOTENT
    Args = JobPlanArgs

    def __init__(self, *, always_asks: bool = False) -> None:
        self._always_asks = always_asks

    def question(self, args: JobPlanArgs, memory: Memory, *, asked: bool) -> Question | None:
        """What was approved of is not asked for again while only the steps' status changes."""
        plan = _plan(args, memory, "pending")
        old = memory.plan
        if old and old["approval"] == "approved" and _substance(old) == _substance(plan):
            return None
        if not (asked or args.needs_approval or self._always_asks):
            return None
        return Question({"question": "Is this plan approved?", "plan": plan}, [("plan", plan)])

    async def run(self, args: JobPlanArgs, ctx: ToolContext) -> ToolResult:
        old = ctx.memory.plan
        if ctx.answer is not None:
            return _answered(args, ctx.memory, ctx.answer.value)
        plan = _plan(args, ctx.memory, "none")
        if old and _substance(old) == _substance(plan):
            plan["approval"] = old["approval"]
        content = "\n".join([*plan_lines(plan), "The user sees it. Go on with the work."])
        return ToolResult(ok=True, content=content, data=plan, events=[("plan", plan)], memory={"plan": plan})


def _answered(args: JobPlanArgs, memory: Memory, answer: Any) -> ToolResult:
    approved, comment = meaning(answer)
    plan = {**_plan(args, memory, "approved" if approved else "rejected"), "comment": comment}
    said = f" They say: {comment}" if comment else ""
    if approved:
        then = f"Go on with the work.{said}"
    else:
        then = f"The user did not approve of it.{said} Change the plan accordingly, and call job_plan again."
    return ToolResult(
        ok=approved,
        content="\n".join([*plan_lines(plan), then]),
        data=plan,
        error_code=None if approved else "not_approved",
        events=[("plan", plan)],
        memory={"plan": plan},
    )


def _plan(args: JobPlanArgs, memory: Memory, approval: str) -> JSON:
    fields = args.model_dump(mode="json", exclude={"needs_approval"})
    before = memory.plan
    steps = with_ids(fields["steps"], before["steps"] if before else [], "title")
    return {"version": (before["version"] if before else 0) + 1, **fields, "steps": steps, "approval": approval}


def _substance(plan: JSON) -> JSON:
    """What a plan says, but for how far its steps are."""
    steps = [(step["title"], step["detail"]) for step in plan["steps"]]
    return {"steps": steps, **{name: plan[name] for name in SUBSTANCE}}
