"""The settings of what goes out to other servers on a model's or a user's behalf."""

from pydantic import Field

from shared.config.types import Count, Port, PrivateHost, Section


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
