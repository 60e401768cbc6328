"""What requests about rows of a workspace have in common: who keeps what, and what null means."""

from typing import Annotated, Any, Self

from pydantic import AliasChoices, Field, model_validator

from gateway.routes.bodies import Body, JsonObject, Name, RowBody, Version
from shared.types import JSON

Description = Annotated[str, Field(max_length=10_000)]
COLUMNS = {
    "project_id": "project",
    "knowledge_config": "knowledge",
    "storage_config": "storage",
    "leader_agent_id": "leader",
}
"""Those that have another name in requests."""
TEXTS = ("description", "instructions")
NULLABLE = (
    *("project_id", "output_schema", "timeout_seconds", "runnable_id", "input"),
    *("prompt", "temperature", "permissions"),
)


def aliases(*names: str) -> Any:
    """The first is ours."""
    return AliasChoices(*names)


class RowFields(RowBody):
    """Null is as if a field had never been given."""

    description: Description | None = None
    project_id: Name | None = Field(
        default=None,
        validation_alias=aliases("project_id", "projectId"),
        description="The project of the workspace that it belongs to.",
    )
    metadata: JsonObject | None = Field(default=None, description="Whatever you want to keep with it.")

    def columns(self) -> JSON:
        """Those that the request gives."""
        given = self.model_fields_set - {"expected_version", "note"}
        return {COLUMNS.get(name, name): self._column(name) for name in given}

    def _column(self, name: str) -> Any:
        value = getattr(self, name)
        if isinstance(value, Body):
            return value.model_dump(exclude_none=True)
        if value is not None or name in NULLABLE:
            return value
        return "" if name in TEXTS else {}


class RowPatch(RowFields):
    """What is not given stays as it is."""

    expected_version: Version | None = Field(default=None, description="As `If-Match`.")

    @model_validator(mode="after")
    def _keeps_what_it_needs(self) -> Self:
        for name in self.model_fields_set & self.needed():
            if getattr(self, name) is None:
                raise ValueError(f"{name} cannot be null")
        return self

    @classmethod
    def needed(cls) -> frozenset[str]:
        """Fields that every row has."""
        return frozenset({"name"})
