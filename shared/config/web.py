"""The settings of what goes out to other servers on a model's or a user's behalf."""

from typing import Literal

from pydantic import Field, SecretStr

from shared.config.types import Count, HttpUrl, Port, PrivateHost, Section


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
