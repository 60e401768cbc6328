"""What requests may say. Unknown fields are errors, values are not converted: "5" is no number (5.0 is 5)."""

import re
from typing import Annotated, Any, Literal, Self

import orjson
from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from gateway.patterns import NOT_BLANK, ONE_LINE, is_blank, looks_like
from shared.config.types import HostPattern, Permission
from shared.types import FUNCTION_PARAMETERS, JSON, RESERVED


def _storable(value: Any) -> Any:
    try:
        orjson.dumps(value, default=BaseModel.model_dump)
    except TypeError as error:
        raise ValueError("should not be nested that deeply") from error
    return value


def _not_blank(text: str) -> str:
    if is_blank(text):
        raise ValueError("should not be blank")
    return text


def _whole_number(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _without_nul(value: Any) -> Any:
    """As Postgres takes it."""
    if _NUL.search(orjson.dumps(value, default=BaseModel.model_dump)):
        raise ValueError("should have no character U+0000 in it")
    return value


_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""The character as JSON has it, after an even number of backslashes."""
_RULE = r"^[\t-\r ]*[A-Za-z0-9_*?.-]+[\t-\r ]*:[\t-\r ]*(allow|ask|deny)([\t-\r ][\s\S]*)?$"


Json = Annotated[Any, AfterValidator(_storable)]
JsonObject = Annotated[JSON, AfterValidator(_storable)]
Text = Annotated[str, AfterValidator(_not_blank), looks_like(NOT_BLANK)]
Name = Annotated[Text, Field(max_length=200), AfterValidator(_without_nul)]
LineName = Annotated[Name, Field(pattern=r"^[^\x00-\x1f]+$"), looks_like(ONE_LINE)]


INTEGRAL = BeforeValidator(_whole_number)
"""Behind the bounds of an int: JSON makes no difference between 5.0 and 5."""
Version = Annotated[int, Field(ge=0, le=2**31 - 1), INTEGRAL]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class RowBody(Body):
    """What is kept in SQL."""

    @field_validator("*")
    @classmethod
    def _fits_a_row(cls, value: Any) -> Any:
        return _without_nul(_storable(value))


class InitiateBody(Body):
    metadata: JsonObject = Field(default={}, description="Whatever the client wants to keep with the thread.")
    context: JsonObject = Field(default={}, description="What the agent should know in every run of the thread.")
    flow_uuid: Name | None = Field(
        default=None, alias="flowUuid", description="With flowInputUuid a name of the thread's stream (legacy)."
    )
    flow_input_uuid: Name | None = Field(default=None, alias="flowInputUuid")
    agent_id: Name | None = Field(
        default=None,
        validation_alias=AliasChoices("agent_id", "agentId"),
        description="Who does what is executed in it: an agent, or a kind of agents such as `coder`.",
    )
    project_id: str | None = Field(
        default=None,
        description="The project that it belongs to.",
        validation_alias=AliasChoices("project_id", "projectId"),
    )

    model_config = ConfigDict(json_schema_extra={"examples": [{"metadata": {"customer": "c-17"}}]})

    @model_validator(mode="after")
    def _names_both_or_none(self) -> Self:
        if (self.flow_uuid is None) is not (self.flow_input_uuid is None):
            raise ValueError("flowUuid and flowInputUuid belong together")
        return self


class ContextItem(BaseModel):
    """Something the agent should know for this run. Further fields are kept."""

    model_config = ConfigDict(extra="allow", strict=True)

    type: Name
    content: Any

    @model_validator(mode="after")
    def _is_storable(self) -> Self:
        _storable(self.model_dump())  # its further fields, too
        return self


Rules = Annotated[list[Annotated[Permission, looks_like(_RULE)]], Field(max_length=100)]


class Parameters(Body):
    """How the run is to be done; what is not given comes from the configuration."""

    model: Name | None = Field(default=None, description="A LiteLLM model name.")
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    max_turns: Annotated[int, Field(ge=1, le=10_000), INTEGRAL] | None = Field(default=None, description="Model calls.")
    max_seconds: Annotated[float, Field(gt=0, le=10**7)] | None = Field(
        default=None, description="In the hands of workers; what it waits does not count."
    )
    max_cost: Annotated[float, Field(gt=0, le=10**6)] | None = Field(default=None, description="US dollars.")
    max_tokens: Annotated[int, Field(ge=1, le=10**10), INTEGRAL] | None = Field(
        default=None, description="Tokens, read and written."
    )
    max_delegates: Annotated[int, Field(ge=0, le=10_000), INTEGRAL] | None = Field(
        default=None, description="Agents that it may start with `delegate`, together with those that they start."
    )
    tools: list[Name] | None = Field(default=None, description="The tools it may use; none if empty.")
    permissions: Rules | None = Field(
        default=None, description="Rules for its calls, as TOOL: allow|ask|deny [PATTERN], beside the configuration's."
    )
    allowed_hosts: Annotated[list[HostPattern], Field(max_length=100)] | None = Field(
        default=None,
        description="The only hosts that its sandbox reaches, of those that the configuration lets it reach; none if "
        "empty. `*.` in front stands for all names below.",
    )
    priority: Literal["high", "normal", "low"] | None = Field(
        default=None, description="Which runs workers take first. Unset: normal."
    )

    @property
    def unheeded_by_functions(self) -> str | None:
        """What to say of those that would have no effect on a durable function's run."""
        given = sorted(self.model_dump(exclude_none=True).keys() - FUNCTION_PARAMETERS)
        if not given:
            return None
        return (
            f"a function's run does not heed {', '.join(given)}; it may give parameters to the agents that it calls "
            "(step.call)"
        )


OnBusy = Annotated[
    Literal["enqueue", "reject", "interrupt", "rollback"],
    Field(
        description="When another run is under way in the thread: wait for its end, refuse (409), cancel it and all "
        "that wait, or (rollback) cancel them and forget what they added to the conversation. Files stay."
    ),
]


class ExecuteBody(Body):
    task: Text = Field(description="What the agent is to do.")
    context_data: list[ContextItem] = []
    parameters: Parameters = Parameters()
    user_uuid: Name | None = Field(default=None, description="For whom, in the client's own terms.")
    on_busy: OnBusy = "enqueue"

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "task": "Write fizzbuzz.py, run it for 15, and tell me the output",
                    "parameters": {"max_turns": 20, "max_cost": 0.5},
                }
            ]
        }
    )


class RunBody(Body):
    runnable_type: Literal["agent", "function"] = "agent"
    runnable_id: Name | None = Field(
        default=None,
        description="A durable function's name; or an agent's id, or a kind of agents such as `coder` (unset: the "
        "thread's agent, or none).",
    )
    task_id: Name | None = Field(
        default=None, description="A task's run: it says what is run, and what the request does not."
    )
    input: Json = Field(
        default=None,
        validation_alias=AliasChoices("input", "input_variables"),
        description="A function's input; an agent's is `{task, context_data?}`.",
    )
    thread_id: str | None = Field(default=None, description="Unset: a new thread.")
    project_id: str | None = Field(
        default=None,
        validation_alias=AliasChoices("project_id", "projectId"),
        description="Of the new thread. Unset: the agent's, if it has one. With `thread_id`: that thread's, or 404.",
    )
    parameters: Parameters = Parameters()
    user_uuid: Name | None = Field(default=None, description="For whom, in the client's own terms.")
    on_busy: OnBusy = "enqueue"

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"runnable_type": "function", "runnable_id": "fulfil_order", "input": {"order": 7}}]
        }
    )

    @model_validator(mode="after")
    def _fits_its_runnable(self) -> Self:
        if self.task_id is not None:
            return self  # the task says what is run, and it is judged with that
        if self.runnable_type == "function" and self.runnable_id is None:
            raise ValueError("a function's run needs its name in runnable_id")
        if self.runnable_type == "function" and (unheeded := self.parameters.unheeded_by_functions):
            raise ValueError(unheeded)
        if self.runnable_type == "function" and (self.runnable_id or "").startswith(RESERVED):
            raise ValueError(f"functions that begin with {RESERVED} are not for clients")
        if self.runnable_type == "agent":
            AgentInput.model_validate(self.input, strict=True)
        return self


class TaskRunBody(Body):
    input: Json = Field(
        default=None,
        validation_alias=AliasChoices("input", "input_variables"),
        description="Another one than the task's; not given: the task's.",
    )
    thread_id: str | None = Field(default=None, description="Unset: a new thread.")
    parameters: Parameters = Field(default=Parameters(), description="What is not given is as of the task.")
    user_uuid: Name | None = Field(default=None, description="For whom, in the client's own terms.")
    on_busy: OnBusy = "enqueue"

    model_config = ConfigDict(json_schema_extra={"examples": [{"input": {"task": "Sum up last week's changes."}}]})


class AgentInput(Body):
    task: Text
    context_data: list[ContextItem] = []


class EventBody(Body):
    name: LineName = Field(description="What flows wait for.")
    payload: Json = None
    key: Name | None = Field(default=None, description="Only for those who wait for this name and key.")
    run_id: str | None = Field(default=None, description="Only for this run.")

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "payment", "key": "order-7", "payload": {"amount": 12}}]}
    )

    @model_validator(mode="after")
    def _is_for_one_or_all(self) -> Self:
        if self.key is not None and self.run_id is not None:
            raise ValueError("an event is for a key or for a run, not both")
        return self


class HumanBody(Body):
    output: Json = Field(
        default=None,
        validation_alias=AliasChoices("output", "output_data"),
        description="The answer, as the flow gets it.",
    )

    model_config = ConfigDict(json_schema_extra={"examples": [{"output": {"approved": True}}]})


class ResolveBody(HumanBody):
    decision: Literal["repeat", "done", "failed"] = Field(
        alias="as", description="Do it again, take it as done (with `output`), or as failed."
    )

    model_config = ConfigDict(json_schema_extra={"examples": [{"as": "done", "output": {"receipt": "r-12"}}]})


class MessageBody(Body):
    content: Text = Field(description="What the agent is told at the end of its turn.")
    run_id: str | None = Field(default=None, description="Unset: the run whose turn it is.")

    model_config = ConfigDict(json_schema_extra={"examples": [{"content": "Use Python 3.12, please"}]})


class RetryBody(Body):
    parameters: Parameters = Field(default=Parameters(), description="What changes; the rest stays as it was.")

    model_config = ConfigDict(json_schema_extra={"examples": [{"parameters": {"max_cost": 1.5}}]})


class ForkBody(Body):
    step_id: str | None = Field(default=None, description="What comes before this step is kept. Unset: everything.")
    input: Json = Field(default=None, description="Another input than the run's.")


class ForkThreadBody(Body):
    step_id: str | None = Field(default=None, description="The conversation up to this step. Unset: all of it.")


Labels = Annotated[
    dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,63}$")], Annotated[str, Field(pattern=r"^[^\x00]{0,200}$")]],
    Field(max_length=50, json_schema_extra={"additionalProperties": False}),
]


class RunPatch(Body):
    """What is not given stays."""

    name: Name | None = Field(default=None, description="For people.")
    labels: Labels | None = Field(default=None, description="In place of those that it has.")
    expected_version: Version | None = Field(default=None, description="As `If-Match`.")

    model_config = ConfigDict(json_schema_extra={"examples": [{"labels": {"customer": "c-17"}}]})


class ThreadPatch(Body):
    """What is not given stays."""

    name: Name | None = Field(default=None, description="For people.")
    metadata: JsonObject | None = Field(default=None, description="In place of what it has.")
    status: Literal["active", "archived"] | None = Field(
        default=None, description="An archived thread takes no more runs, until it is active again."
    )
    expected_version: Version | None = Field(default=None, description="As `If-Match`.")

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "Invoices"}, {"status": "archived"}]})


class NoBody(Body):
    """Nothing to say; what is said all the same is an error."""
