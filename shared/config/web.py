"""The settings of what goes out to other servers on a model's or a user's behalf."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from shared.config.types import Count, HttpUrl, Port, PrivateHost, Seconds, Section, Text


def _server_name(name: str) -> str:
    if not re.fullmatch(r"[a-zA-Z0-9_-]{1,32}", name) or "__" in name or name.endswith("_"):
        # Its tools are named mcp__SERVER__TOOL: two servers' must not have one name.
        raise ValueError("should be 1 to 32 of a-z, A-Z, 0-9, _ and -, without __, and no _ at its end")
    return name


ServerName = Annotated[str, AfterValidator(_server_name)]


class NetSettings(Section):
    """Where requests on a model's or a user's behalf may go; see docs/web.md."""

    ports: list[Port] = Field(default=[], description="Ports that are allowed beside 80 and 443.")
    private_hosts: list[PrivateHost] = Field(
        default=[],
        description="Hosts of private networks, as host or host:port, that MCP servers, search providers and http "
        "tools may be at. One with a port is allowed at that port only.",
    )


class WebSettings(Section):
    """Pages and searches of the web, for the tools web_fetch and web_search; see docs/web.md."""

    private_hosts: list[PrivateHost] = Field(
        default=[], description="Hosts of private networks, as host or host:port, that models may read pages of."
    )
    max_page_bytes: Count = Field(default=5_242_880, description="Largest page that is read, decompressed.")
    search_providers: list[Literal["tavily", "exa", "brave", "searxng", "ddgs"]] = Field(
        default=[],
        description="Who is asked, in this order, until one finds something: tavily, exa, brave, searxng, ddgs. One "
        "without its key or URL is left out. Empty: all that have theirs, then ddgs, which needs none.",
    )
    tavily_api_key: SecretStr | None = Field(
        default=None, description="Key for Tavily.", examples=["key-from-app.tavily.com"]
    )
    exa_api_key: SecretStr | None = Field(
        default=None, description="Key for Exa.", examples=["key-from-dashboard.exa.ai"]
    )
    brave_api_key: SecretStr | None = Field(
        default=None, description="Key for Brave Search.", examples=["key-from-api-dashboard.search.brave.com"]
    )
    searxng_url: HttpUrl | None = Field(
        default=None,
        description="Address of a SearXNG server that gives JSON. In a private network, list it in net.private_hosts.",
        examples=["https://search.example.com"],
    )


class McpServerSettings(Section):
    """One MCP server: a command that is started by each worker, or an URL. `${NAME}` in values is a variable."""

    command: Text | None = None
    args: list[str] = Field(default=[])
    env: dict[str, SecretStr] = Field(default={})
    url: HttpUrl | None = None
    headers: dict[str, SecretStr] = Field(default={})
    tools: list[Text] | None = None
    """Only these of its tools. Unset: all."""
    call_seconds: Seconds | None = None
    """Unset: mcp.call_seconds."""

    @model_validator(mode="after")
    def _has_one_way(self) -> Self:
        if (self.command is None) == (self.url is None):
            raise ValueError("should have either a command or an url")
        return self


class McpSettings(Section):
    """MCP servers, whose tools agents are given as mcp__SERVER__TOOL; see docs/mcp.md."""

    servers: dict[ServerName, McpServerSettings] = Field(
        default={},
        description="The servers by name: tables [mcp.servers.NAME] with command, args and env, or url and headers.",
    )
    connect_seconds: Seconds = Field(
        default=10, description="Time that a server has to start and to tell its tools; then a worker goes on without."
    )
    call_seconds: Seconds = Field(default=60, description="Longest call of a tool.")
    agents_stdio: bool = Field(
        default=False,
        description="Whether an agent of a workspace may name a program as an MCP server of its own. It runs on the "
        "worker's machine as the worker does, outside any sandbox.",
    )
