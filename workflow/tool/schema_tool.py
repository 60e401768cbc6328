"""Tools that bring a JSON Schema for their arguments, instead of a class: they are known at run time only."""

from shared.types import JSON
from workflow.tool.arguments import decode_arguments, wrong_arguments
from workflow.tool.base import Args, Effect, Tool
from workflow.tool.json_schema import faults, plain_schema, told_schema


class GivenArgs(Args):
    """Arguments that fit their schema."""

    fields: JSON


class SchemaTool(Tool[GivenArgs]):
    """The model is told what is left of `schema` once it is plain. Subclasses write `run`.

    `trusted`: arguments are judged by all of it. Else it is anybody's, and they are judged by what is plain.
    """

    Args = GivenArgs

    def __init__(
        self,
        name: str,
        description: str,
        schema: JSON,
        effect: Effect,
        *,
        asks_when_unknown: bool,
        trusted: bool = False,
    ) -> None:
        self._name = name
        self._description = description
        plain = plain_schema(schema)
        self._schema = {"properties": {}, "required": []} | schema if trusted else plain
        self._told = told_schema(plain)
        self._effect = effect
        self._asks_when_unknown = asks_when_unknown

    @property
    def name(self) -> str:
        return self._name

    @property
    def description(self) -> str:
        return self._description

    @property
    def effect(self) -> Effect:
        return self._effect

    @property
    def asks_when_unknown(self) -> bool:
        return self._asks_when_unknown

    @property
    def parameters(self) -> JSON:
        return self._told

    def parse(self, arguments: str) -> GivenArgs | str:
        fields = decode_arguments(self.name, self._schema, arguments)
        if isinstance(fields, str):
            return fields
        wrong = faults(self._schema, fields)
        return wrong_arguments(self.name, wrong) if wrong else GivenArgs(fields=fields)
