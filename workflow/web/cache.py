"""Remembers pages for a while, so that a page's second part needs no second request."""

import time
from collections import OrderedDict
from collections.abc import Callable

from workflow.web.fetch import Page

KEEP_SECONDS = 900.0
KEPT_CHARS = 8_000_000


class PageCache:
    """The latest pages by the URL that was asked for, of at most `KEPT_CHARS` characters together."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._pages: OrderedDict[str, tuple[float, Page]] = OrderedDict()
        self._chars = 0

    def get(self, url: str) -> Page | None:
        since, page = self._pages.get(url, (0.0, None))
        return page if page and self._now() - since < KEEP_SECONDS else None

    def put(self, url: str, page: Page) -> None:
        self._drop(url)
        self._pages[url] = (self._now(), page)
        self._chars += len(page.text)
        while self._chars > KEPT_CHARS:
            self._drop(next(iter(self._pages)))

    def _drop(self, url: str) -> None:
        _, page = self._pages.pop(url, (0.0, None))
        self._chars -= len(page.text) if page else 0
