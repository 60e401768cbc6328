"""What a worker's tools need of the web, made once from the settings and given to them with each call."""

from dataclasses import dataclass, field

from shared.config import Settings
from shared.net.guard import Guard
from workflow.web.cache import PageCache
from workflow.web.fetch import Moved, Page, fetch
from workflow.web.search.chain import SearchChain, configured_providers


@dataclass(frozen=True)
class Web:
    """`pages` guards what models ask for by URL, `services` the servers that the settings name, and `workspaces` those
    that the tools of workspaces name."""

    pages: Guard = field(default_factory=Guard)
    services: Guard = field(default_factory=Guard)
    workspaces: Guard = field(default_factory=Guard)
    search: SearchChain = field(default_factory=lambda: SearchChain([]))
    max_page_bytes: int = 5 * 1024**2
    cache: PageCache = field(default_factory=PageCache)

    @classmethod
    def of(cls, settings: Settings) -> "Web":
        net, web = settings.net, settings.web
        services = Guard(ports=net.ports, private_hosts=net.private_hosts)
        return cls(
            pages=Guard(ports=net.ports, private_hosts=web.private_hosts),
            services=services,
            workspaces=Guard(ports=net.ports, private_hosts=settings.tools.private_hosts),
            search=SearchChain(configured_providers(web, services)),
            max_page_bytes=web.max_page_bytes,
        )

    async def page(self, url: str) -> Page | Moved:
        """From the cache where it is fresh. Raises FetchError."""
        if known := self.cache.get(url):
            return known
        found = await fetch(self.pages, url, max_bytes=self.max_page_bytes)
        if isinstance(found, Page):
            self.cache.put(url, found)
        return found
