"""What requests may say. Unknown fields are errors, values are not converted: "5" is no number."""

from typing import Annotated, Any, Literal, Self

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from shared.types import JSON


def _storable(value: Any) -> Any:
    try:
        orjson.dumps(value)
    except TypeError as error:
        raise ValueError("should not be nested that deeply") from error
    return value


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("should not be blank")
    return text


JsonObject = Annotated[JSON, AfterValidator(_storable)]
Text = Annotated[str, AfterValidator(_not_blank)]
Name = Annotated[Text, Field(max_length=200)]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class InitiateBody(Body):
    metadata: JsonObject = Field(default={}, description="Whatever the client wants to keep with the thread.")
    context: JsonObject = Field(default={}, description="What the agent should know in every run of the thread.")

    model_config = ConfigDict(json_schema_extra={"examples": [{"metadata": {"customer": "c-17"}}]})

    @model_validator(mode="before")
    @classmethod
    def _refuse_what_would_be_ignored(cls, body: Any) -> Any:
        """Fields of the API that this version does not act on: better refused than silently without effect."""
        unsupported = {"agent_id", "project_id", "flowUuid", "flowInputUuid"}
        if isinstance(body, dict) and (given := sorted(unsupported & body.keys())):
            raise PydanticCustomError(
                "unsupported", "{names}: not supported by this version", {"names": ", ".join(given)}
            )
        return body


class ContextItem(BaseModel):
    """Something the agent should know for this run. Further fields are kept."""

    model_config = ConfigDict(extra="allow", strict=True)

    type: Name
    content: Any

    @model_validator(mode="after")
    def _is_storable(self) -> Self:
        _storable(self.model_dump())
        return self


class Parameters(Body):
    """How the run is to be done; what is not given comes from the configuration."""

    model: Name | None = Field(default=None, description="A LiteLLM model name.")
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    max_turns: Annotated[int, Field(ge=1, le=10_000)] | None = Field(default=None, description="Model calls.")
    max_seconds: Annotated[float, Field(gt=0, le=10**7)] | None = None
    max_cost: Annotated[float, Field(gt=0, le=10**6)] | None = Field(default=None, description="US dollars.")
    tools: list[Name] | None = Field(default=None, description="The tools it may use; none if empty.")


class ExecuteBody(Body):
    task: Text = Field(description="What the agent is to do.")
    context_data: list[ContextItem] = []
    parameters: Parameters = Parameters()
    user_uuid: Name | None = Field(default=None, description="For whom, in the client's own terms.")
    on_busy: Literal["enqueue", "reject"] = Field(
        default="enqueue", description="When another run is under way in the thread: wait for its end, or refuse (409)."
    )

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


class NoBody(Body):
    """Nothing to say; what is said all the same is an error."""
