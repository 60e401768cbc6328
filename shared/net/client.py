"""HTTP over connections that a Guard allows: no proxies, no cookies, no redirects, and bodies with a limit."""

import zlib
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx

from shared.net.guard import Guard, Target

CONNECT_SECONDS = 10.0


class BodyRefused(Exception):
    """A response's body that is not read to its end. The text says why."""


class GuardedTransport(httpx.AsyncBaseTransport):
    """Connects to addresses that the guard has checked; the server still sees its own name, in TLS and in Host.

    Raises Refused beside httpx's errors.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._by_host: dict[str, httpx.AsyncHTTPTransport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            target = await self._guard.check(request.url)
        except OSError as error:
            raise httpx.ConnectError(f"{request.url.host} cannot be resolved: {error}", request=request) from error
        # Connections are kept by address, and a certificate was checked for one name: hosts share none.
        transport = self._by_host.get(target.host) or self._by_host.setdefault(target.host, self.new_transport())
        *others, last = target.addresses
        for address in others:
            try:
                return await transport.handle_async_request(_pinned(request, target, address))
            except (httpx.ConnectError, httpx.ConnectTimeout):  # nothing was sent yet
                continue
        return await transport.handle_async_request(_pinned(request, target, last))

    def new_transport(self) -> httpx.AsyncHTTPTransport:
        return httpx.AsyncHTTPTransport(verify=self._guard.verify, trust_env=False)

    async def aclose(self) -> None:
        for transport in self._by_host.values():
            await transport.aclose()


def _pinned(request: httpx.Request, target: Target, address: str) -> httpx.Request:
    return httpx.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": target.host},
    )


def guarded_client(guard: Guard, *, seconds: float, headers: dict[str, str] | None = None) -> httpx.AsyncClient:
    """`seconds`: patience with each read and write. Follow redirects by hand: each request is checked anew."""
    return httpx.AsyncClient(
        transport=GuardedTransport(guard),
        timeout=httpx.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS)),
        headers={"Accept-Encoding": "gzip", **(headers or {})},
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        follow_redirects=False,
        trust_env=False,
    )


async def read_capped(response: httpx.Response, limit: int) -> bytes:
    """The body, decompressed, of at most `limit` bytes. Raises BodyRefused as soon as it proves longer."""
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", "x-gzip", ""):
        raise BodyRefused(f"its encoding {encoding[:40]!r} was not asked for")
    unzip = zlib.decompressobj(zlib.MAX_WBITS | 16) if "gzip" in encoding else None
    body = bytearray()
    async for chunk in response.aiter_raw():
        room = limit + 1 - len(body)
        try:
            body += unzip.decompress(chunk, room) if unzip else chunk[:room]
        except zlib.error as error:
            raise BodyRefused("it says that it is gzip, and is not") from error
        if len(body) > limit:
            raise BodyRefused(f"it has more than {limit:,} bytes")
    if unzip and not unzip.eof:
        raise BodyRefused("it ends in the middle")
    return bytes(body)
