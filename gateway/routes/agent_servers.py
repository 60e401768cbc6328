"""MCP servers of an agent's own, in requests and answers. What may be a secret in them goes in, and never out."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from gateway.errors import invalid
from gateway.routes.bodies import Body, Name
from shared.config import Settings
from shared.config.types import HttpUrl
from shared.config.web import ServerName
from shared.errors import FieldError
from shared.secrets import VARIABLE
from shared.types import JSON

MOST_SERVERS = 20
SECRET = ("headers", "env")
SERVER_NAME = "^[a-zA-Z0-9_-]{1,32}$"

Secrets = dict[Name, Annotated[str, Field(max_length=10_000)] | None]
Seconds = Annotated[float, Field(gt=0, le=86_400)]


class AgentMcpServer(Body):
    url: Annotated[HttpUrl, Field(max_length=2_000)] | None = Field(
        default=None, description="Of its streamable HTTP. Secrets belong in headers: this is shown again."
    )
    headers: Secrets = Field(
        default={}, description="Their values are not shown again. Null in a change: what there was."
    )
    command: Name | None = Field(
        default=None, description="In place of url, a program on the workers' machines: where mcp.agents_stdio is true."
    )
    args: Annotated[list[str], Field(max_length=100)] = Field(default=[])
    env: Secrets = Field(default={}, description="As headers, for a command.")
    tools: Annotated[list[Name], Field(max_length=200)] | None = Field(
        default=None, description="Only these of its tools, as it names them. Unset: all."
    )
    call_seconds: Seconds | None = Field(default=None, description="Longest call. Unset: mcp.call_seconds.")

    @model_validator(mode="after")
    def _has_one_way(self) -> Self:
        if (self.command is None) == (self.url is None):
            raise ValueError("should have either an url or a command")
        return self


McpServers = Annotated[dict[ServerName, AgentMcpServer], Field(max_length=MOST_SERVERS)]


def check_servers(settings: Settings, servers: JSON) -> list[FieldError]:
    """What this installation does not let an agent have."""
    return [
        FieldError(place=f"body.mcp_servers.{name}", detail=detail)
        for name, server in servers.items()
        if (detail := _problem(settings, name, server)) is not None
    ]


def _problem(settings: Settings, name: str, server: JSON) -> str | None:
    if name in settings.mcp.servers:
        return "is the name of a server of the installation. Take another name"
    if server.get("command") is not None and not settings.mcp.agents_stdio:
        return "is a command: agents name servers by url here (mcp.agents_stdio)"
    values = [value for field in SECRET for value in server.get(field, {}).values() if value is not None]
    if named := next((found[0] for value in values if (found := VARIABLE.search(value))), None):
        return f"names {named}: only servers of the installation's configuration may use its secrets"
    return None


def with_kept(servers: JSON, before: JSON | None) -> JSON:
    """As they are to be kept: null stands for the value that there is. Raises AppError INVALID_REQUEST for none."""
    wrong: list[FieldError] = []
    kept: JSON = {}
    for name, server in servers.items():
        kept[name] = dict(server)
        known = (before or {}).get(name, {})
        for field in SECRET:
            # A value goes to the place that it was given for, and nowhere else.
            old = known.get(field, {}) if _place(known) == _place(server) else {}
            wrong += [
                FieldError(place=f"body.mcp_servers.{name}.{field}.{key}", detail="has no value yet that could be kept")
                for key, value in server.get(field, {}).items()
                if value is None and key not in old
            ]
            kept[name][field] = {key: old.get(key) if value is None else value for key, value in server[field].items()}
    if wrong:
        raise invalid(wrong)
    return kept


def _place(server: JSON) -> tuple[str | None, str | None]:
    return server.get("url"), server.get("command")


def shown(servers: JSON | None) -> JSON:
    """Without the values of what may be a secret."""
    return {
        name: {**server, **{field: dict.fromkeys(server.get(field, {})) for field in SECRET}}
        for name, server in (servers or {}).items()
    }
