"""One tool call of the model, as a durable step.

A call with effects is committed as started before it runs. Found in flight after a crash, it is asked what became of
it: its result, "never began" (then it runs), or nobody can tell. Then the model is told so and decides, or, as the tool
says, the run waits for a human.
"""

import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, replace

import orjson

from shared.links import PortLinks
from shared.permissions import Permissions
from shared.threads.steps import call_key, tool_step
from shared.types import JSON, EventType, StepStatus
from workflow.agent.budget import RunBudget
from workflow.agent.delegate import run_child
from workflow.agent.permit import Gate, permit_name
from workflow.agent.sandbox import ThreadSandbox
from workflow.agent.shares import Left, Taken
from workflow.engine.coalesce import Coalescer
from workflow.engine.journal import StepSpec
from workflow.engine.scope import AskHuman, Outcome, StepScope
from workflow.engine.step import Step
from workflow.llm.types import NO_USAGE, ToolCall
from workflow.runtime import Runtime
from workflow.tool.base import Answer, ChildEnd, OutcomeUnknown, ToolContext, ToolResult
from workflow.tool.dispatch import is_repeatable, recover_call, run_call
from workflow.tool.memory import Memory
from workflow.tool.planning import standing
from workflow.tool.registry import Call, Registry

UNKNOWN = "outcome_unknown"
BEGAN_ELSEWHERE = (
    "This call was under way when an earlier run of this work ended. Whether it took effect, fully or in part, is not "
    "known. Look at the state of things before you repeat it."
)


class ToolCaller:
    """Calls one run's tools. `sandbox` makes or finds the thread's sandbox."""

    def __init__(
        self,
        step: Step,
        tools: Registry,
        runtime: Runtime,
        *,
        sandbox: ThreadSandbox,
        links: PortLinks,
        messages: list[JSON],
        budget: RunBudget,
    ) -> None:
        self._step = step
        self._tools = tools
        self._interval_seconds = runtime.settings.agent.coalesce_ms / 1000
        self._limits = runtime.tool_limits
        self._web = runtime.web
        self._observer = runtime.observer
        self._sandbox = sandbox
        self._links = links
        self._budget = budget
        self._shares: dict[str, Left | None] = {}
        own = {name for name in (step.run.model, step.run.options.get("model")) if name}
        self._models = runtime.delegate_models | own
        of_agent = (step.run.definition or {}).get("permissions", ())
        of_run = step.run.options.get("permissions", ())
        rules = Permissions.of(runtime.settings.tools.permissions, *of_agent, of_run)
        self._gate = Gate(step, rules, ask_seconds=runtime.settings.tools.ask_seconds)
        self._memory = Memory.of(message["memory"] for message in messages if message.get("memory"))

    def standing(self) -> str:
        """What the model must not lose sight of, whatever is summed up."""
        return standing(self._memory)

    def side_by_side(self, call: ToolCall) -> bool:
        """Whether it may run beside others of its turn: it only reads, is a run of its own, or is refused anyway."""
        return is_repeatable(self._tools.parse(call.name, call.arguments))

    def divide(self, calls: Sequence[ToolCall]) -> None:
        """Before the first call of a turn: what the run has left is for all its delegates."""
        left, delegates = self._budget.left(), [call.id for call in calls if self._is_delegate(call)]
        self._shares = {each: left.share(nth, len(delegates)) for nth, each in enumerate(delegates)}

    def _is_delegate(self, call: ToolCall) -> bool:
        parsed = self._tools.parse(call.name, call.arguments)
        return not isinstance(parsed, str) and parsed.tool.child(parsed.args) is not None

    async def call(self, call: ToolCall) -> JSON:
        """Returns the tool's message for the model. Raises SandboxUnavailable, SandboxFenced, Fenced.

        What has finished is as it was, whatever became of its tool and of the rules since.
        """
        request = {"tool_call_id": call.id, "name": call.name, "arguments": call.arguments}
        spec = StepSpec(tool_step(call.id), call.name, "tool", request)
        self._visit(call)
        known = self._step.journal.known(spec.key)
        message: JSON
        if known and known.finished:
            message = await self._step.recorded(spec)
            self._budget.count_delegate(Taken(**message.get("delegated", {})))
        else:
            message = await self._made(call, spec)
        self._memory.learn(message["memory"])
        return message

    async def _made(self, call: ToolCall, spec: StepSpec) -> JSON:
        parsed = self._tools.parse(call.name, call.arguments)
        refusal = await self._gate.refusal(call, parsed, key=call_key(call.id), begun=self._begun(call))
        answer = None if refusal else await self._answer(call, parsed)
        child = None if refusal else await self._child(call, parsed)
        taken = Taken.by(child.usage) if child and child.usage is not None else Taken()
        self._budget.count_delegate(taken)

        async def do(ctx: ToolContext) -> ToolResult:
            return refusal or await run_call(parsed, replace(ctx, answer=answer, child=child))

        async def body(scope: StepScope) -> Outcome:
            outcome = await self._outcome(scope, call, do)
            assert outcome is not None
            return self._with_delegates(outcome, taken) if taken.runs else outcome

        async def recover(scope: StepScope) -> Outcome | None:
            if scope.inherited:
                return await self._outcome(scope, call, _began_elsewhere)
            return await self._outcome(scope, call, lambda ctx: recover_call(parsed, replace(ctx, answer=answer)))

        def settle(_: StepScope, decision: JSON) -> Outcome:
            return _outcome(call, _found_out(call, decision), [])

        intent = not refusal and not is_repeatable(parsed)
        spec = replace(spec, intent=intent, asks=self._tools.asks_when_unknown(call.name))
        started = [] if child else [(EventType.TOOL_REQUEST, spec.input)]
        message: JSON = await self._step.perform(spec, body, started=started, recover=recover, settle=settle)
        return message

    def _visit(self, call: ToolCall) -> None:
        """The steps before the call's own, which are asked for only while its tool and its rules are what they were."""
        journal, name = self._step.journal, _name(call)
        for key in (f"approve:{permit_name(call_key(call.id))}", f"approve:{name}", f"call:{name}"):
            journal.visit(key)
        key = f"emit:{name}"
        for nth in itertools.count(2):
            if journal.known(key) is None:
                return
            journal.visit(key)
            key = f"emit:{name}:{nth}"

    async def _answer(self, call: ToolCall, parsed: Call | str) -> Answer | None:
        """A human's, where the tool has a question. A call that was begun without one is not asked about any more."""
        name = _name(call)
        asked = self._step.journal.known(f"approve:{name}") is not None
        begun = self._step.journal.known(tool_step(call.id)) is not None
        if isinstance(parsed, str) or (begun and not asked):
            return None
        question = parsed.tool.question(parsed.args, self._memory, asked=asked)
        if question is None:
            return None
        for kind, data in question.events:
            await self._step.emit(kind, data, name=name)
        return Answer(await self._step.approve(question.request, name=name))

    def _begun(self, call: ToolCall) -> bool:
        keys = (tool_step(call.id), f"call:{_name(call)}")
        return any(self._step.journal.known(key) is not None for key in keys)

    async def _child(self, call: ToolCall, parsed: Call | str) -> ChildEnd | None:
        """The end of the run that does the call's work, where it is one's."""
        name = _name(call)
        called = self._step.journal.known(f"call:{name}") is not None
        if isinstance(parsed, str) or (self._begun(call) and not called):
            return None
        child = parsed.tool.child(parsed.args)
        if child is None:
            return None
        share = self._shares.get(call.id)
        return await run_child(self._step, call, child, name=name, tools=self._tools, models=self._models, share=share)

    def _with_delegates(self, outcome: Outcome, taken: Taken) -> Outcome:
        message = outcome.result | {"delegated": asdict(taken)}
        usage = orjson.dumps(self._budget.usage_with(NO_USAGE))
        return replace(outcome, result=message, messages=[message], run={"usage": usage})

    async def _outcome(
        self, scope: StepScope, call: ToolCall, do: Callable[[ToolContext], Awaitable[ToolResult | None]]
    ) -> Outcome | None:
        async with self._streamed(scope, call) as output:
            try:
                with self._observer.tool_call(call.name, call.id, call.arguments) as seen:
                    result = seen.result = await do(self._context(scope, call, output))
            except OutcomeUnknown as unknown:
                if scope.asks or self._tools.asks_when_unknown(call.name):
                    raise AskHuman(unknown.detail) from unknown
                result = ToolResult.error(UNKNOWN, unknown.detail)
            return None if result is None else _outcome(call, result, await output.rest())

    def _context(self, scope: StepScope, call: ToolCall, output: Coalescer) -> ToolContext:
        async def show(stream: str, text: str) -> None:
            output.add(stream, text)

        return ToolContext(
            run_id=scope.run_id,
            step_id=scope.step_id,
            call_id=call.id,
            key=scope.key,
            epoch=scope.epoch,
            sandbox=self._sandbox,
            output=show,
            publish=self._step.waits.publish,
            links=self._links,
            memory=self._memory,
            limits=self._limits,
            web=self._web,
            effect_key=scope.effect_key,
            has_sandbox=self._sandbox.in_use,
        )

    def _streamed(self, scope: StepScope, call: ToolCall) -> Coalescer:
        def event(stream: str, text: str) -> tuple[str, JSON]:
            return EventType.TOOL_OUTPUT, {"tool_call_id": call.id, "stream": stream, "text": text}

        return Coalescer(scope.emit, event, self._interval_seconds)


async def _began_elsewhere(_: ToolContext) -> ToolResult | None:
    raise OutcomeUnknown(BEGAN_ELSEWHERE)


def _name(call: ToolCall) -> str:
    """Of the steps before the call's own."""
    return f"{call.name}:{call_key(call.id)}"


def _found_out(call: ToolCall, decision: JSON) -> ToolResult:
    """What somebody found out about a call whose outcome nobody knew."""
    output = decision.get("output")
    told = output if isinstance(output, str) else "" if output is None else orjson.dumps(output).decode()
    if decision["as"] == "failed":
        return ToolResult.error("failed", f"{call.name} was found to have failed. {told}".strip())
    return ToolResult(ok=True, content=f"{call.name} was found to have been done. {told}".strip())


def _outcome(call: ToolCall, result: ToolResult, rest: list[tuple[str, JSON]]) -> Outcome:
    message = {
        "role": "tool",
        "tool_call_id": call.id,
        "name": call.name,
        "content": result.content,
        "memory": result.memory,
    }
    response = {
        "tool_call_id": call.id,
        "name": call.name,
        "ok": result.ok,
        "content": result.content,
        "data": result.data,
        "error_code": result.error_code,
    }
    return Outcome(
        message,
        messages=[message],
        events=[*rest, *result.events, (EventType.TOOL_RESPONSE, response)],
        status=StepStatus.UNKNOWN if result.error_code == UNKNOWN else StepStatus.SUCCEEDED,
    )
