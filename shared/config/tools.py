"""The settings of what agents may use, and of tools that are described rather than programmed."""

from fnmatch import fnmatchcase
from typing import Annotated, Literal

from pydantic import Field, JsonValue, StringConstraints

from shared.config.types import (
    BUILT_IN_TOOLS,
    DEFAULT_TOOLS,
    HttpUrl,
    Permission,
    PrivateHost,
    Seconds,
    Section,
    Text,
    ToolPattern,
)
from shared.types import JSON

DEFAULT = "default"
ToolName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]{0,63}$")]
Function = Annotated[str, StringConstraints(pattern=r"^[\w.]+:\w+$")]
Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_]\w*$")]


class HttpCall(Section):
    """A request. `{field}` stands for an argument, `${NAME}` for a variable that `tools.secrets` names."""

    url: HttpUrl
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    headers: dict[str, str] = Field(default={})
    query: dict[str, str] | None = None
    """Unset: of a GET or DELETE, the arguments that the URL does not have."""
    body: JsonValue = None
    """As JSON. Unset: of the other methods, the arguments that the URL does not have."""


class FunctionCall(Section):
    """A Python function, by `module:name`, called with the arguments by name."""

    function: Function


ToolDescription = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1024)]


class ToolDefinition(Section):
    """A tool as data. `input_schema` and `output_schema` are JSON Schemas, and enforced."""

    type: Literal["http", "function"]
    description: ToolDescription
    config: HttpCall | FunctionCall
    input_schema: JSON = Field(default={"type": "object", "properties": {}})
    output_schema: JSON | None = None
    effect: Literal["repeatable", "idempotent", "none"] = "none"
    timeout_seconds: Seconds | None = None


class ToolsSettings(Section):
    """What agents may use; see docs/tools.md."""

    enabled: list[ToolPattern] = Field(
        default=[DEFAULT],
        description=f"Tools that agents are given, by name or pattern. default stands for {', '.join(DEFAULT_TOOLS)}; "
        f"further ones are {', '.join(name for name in BUILT_IN_TOOLS if name not in DEFAULT_TOOLS)}, and those of "
        "tools.modules and of installed packages. Tools of tools.definitions and of MCP servers are given anyway.",
    )
    disabled: list[ToolPattern] = Field(default=[], description="Tools that agents are not given, whatever is enabled.")
    permissions: list[Permission] = Field(
        default=[],
        description="Rules for calls, as TOOL: allow|ask|deny [PATTERN]; the last one that fits a call decides.",
        examples=[["bash: deny rm -rf /*", "bash: ask git push*"]],
    )
    ask_seconds: Seconds | None = Field(
        default=None,
        description="Time that people have to answer an ask; then the call counts as refused. Unset: no limit.",
        examples=[86_400],
    )
    modules: list[Text] = Field(default=[], description="Python modules with tools of your own.")
    definitions: dict[ToolName, ToolDefinition] = Field(
        default={},
        description="Tools as data: tables [tools.definitions.NAME] with type (http or function), description, config, "
        "input_schema, output_schema, effect and timeout_seconds.",
    )
    secrets: list[Variable] = Field(default=[], description="Environment variables that http tools may use as ${NAME}.")
    function_modules: list[Text] = Field(
        default=[], description="Python modules whose functions may be tools, with all that is below them."
    )
    private_hosts: list[PrivateHost] = Field(
        default=[],
        description="Hosts of private networks, as host or host:port, that tools of workspaces (POST /api/tools) and "
        "MCP servers of agents may be at. Those of net.private_hosts are for what the settings name.",
    )
    function_threads: Annotated[int, Field(ge=1)] = Field(
        default=64,
        description="Functions that are not async that may be under way at the same time, with those that were given "
        "up at their time limit and still go on. A call of one more is refused.",
    )
    trial_seconds: Seconds = Field(
        default=30,
        description="Longest that the answer to a tool's test (POST /api/tools/{id}/test) waits for the call's end, "
        "whatever its request says; then it is 202.",
    )
    timeout_seconds: Seconds = Field(
        default=300, description="Longest call of a tool that has no limit of its own. It is stopped then."
    )
    max_output_chars: Annotated[int, Field(ge=1000)] = Field(
        default=30_000,
        description="Characters of one result that the model reads; the middle of a longer one is left out.",
    )
    plans_need_approval: bool = Field(
        default=False,
        description="Whether an agent waits for a human's approval of each new job plan. Else it asks where it is told "
        "to, or finds it needful.",
    )

    def gives(self, name: str) -> bool:
        """Whether agents are given a tool of this name, if there is one."""
        given = [*self.enabled, *self.definitions, "mcp__*", *(DEFAULT_TOOLS if DEFAULT in self.enabled else ())]
        return _fits(name, given) and not self.disables(name)

    def disables(self, name: str) -> bool:
        """Whether agents are not given it, whoever describes it."""
        return _fits(name, self.disabled)

    def offers(self, module: str) -> bool:
        """Whether its functions may be tools."""
        return any(f"{module}.".startswith(f"{allowed}.") for allowed in self.function_modules)


def _fits(name: str, patterns: list[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
