"""The one place that decides where a request on a model's or a user's behalf may go.

A host is resolved once, every address that it has is checked, and the connection goes to a checked address: a name
that means something else a moment later changes nothing. `shared.net.client` makes such connections.
"""

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import httpx

from shared.net.addresses import is_metadata, is_public
from shared.net.hosts import is_among

PORTS = {"http": 80, "https": 443}
RESOLVE_SECONDS = 5.0
TRIED_ADDRESSES = 4
METADATA_NAMES = frozenset({"metadata", "metadata.google.internal", "metadata.goog", "instance-data"})
PRIVATE_NAMES = re.compile(r"(?:.*\.)?(?:localhost|localdomain|local|internal|home\.arpa)")
NAME = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+")
# The last label of what inet_aton takes for an IPv4 address: 2130706433, 0177.0.0.1, 0x7f.1, 127.1.
NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

Resolve = Callable[[str, int], Awaitable[list[str]]]


class Refused(Exception):
    """A request may not go there. The text says why, for whoever asked."""


@dataclass(frozen=True, slots=True)
class Target:
    """`host` is for the Host header and the certificate; a connection may go to `addresses` and nowhere else."""

    host: str
    addresses: list[str]


async def resolve_host(host: str, port: int) -> list[str]:
    """Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Guard:
    """`ports` are allowed beside 80 and 443. `private_hosts` may be in a private network: `host` or `host:port`.

    An entry with a port allows that port only. Metadata services stay refused, whatever is listed. `hosts`: only these
    may be asked for, private or not; `*.` in front stands for one or more names (None: all may).
    """

    def __init__(
        self,
        *,
        ports: Iterable[int] = (),
        private_hosts: Iterable[str] = (),
        hosts: Iterable[str] | None = None,
        resolve: Resolve = resolve_host,
        verify: ssl.SSLContext | None = None,
    ) -> None:
        self._ports = {*PORTS.values(), *ports}
        self._private = {_host_and_port(entry) for entry in private_hosts}
        self._hosts = None if hosts is None else tuple(hosts)
        self._resolve = resolve
        self._verify = verify

    @cached_property
    def verify(self) -> ssl.SSLContext:
        """What servers' certificates are checked with."""
        return self._verify or httpx.create_ssl_context()

    async def check(self, url: httpx.URL | str) -> Target:
        """Where the request goes. Raises Refused; OSError where the host's name cannot be resolved."""
        host, port = _parsed(url)
        if self._hosts is not None and not is_among(host, self._hosts):
            raise Refused(f"{host} is not among the allowed hosts")
        listed = not self._private.isdisjoint([(host, None), (host, port)])
        if port not in self._ports and (host, port) not in self._private:
            raise Refused(f"port {port} is not allowed: only {', '.join(map(str, sorted(self._ports)))} are")
        _check_name(host, private=listed)
        async with asyncio.timeout(RESOLVE_SECONDS):
            addresses = await self._resolve(host, port)
        for address in addresses:
            if is_metadata(address) or not (listed or is_public(address)):
                raise Refused(f"{host} is not on the public internet ({address})")
        if not addresses:
            raise OSError(f"{host} has no address")
        return Target(host, addresses[:TRIED_ADDRESSES])


def _parsed(url: httpx.URL | str) -> tuple[str, int]:
    """Its host, in lower case and without a final dot, and its port."""
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise Refused(f"it is no valid URL: {error}") from error
    if parts.scheme not in PORTS:
        raise Refused("only http:// and https:// are allowed")
    if parts.userinfo:
        raise Refused("an URL with a user name or password in it is not allowed")
    host = parts.raw_host.decode("ascii").lower().rstrip(".")
    if not NAME.fullmatch(host):
        raise Refused("it names no host")
    return host, parts.port or PORTS[parts.scheme]


def _check_name(host: str, *, private: bool) -> None:
    if host in METADATA_NAMES:
        raise Refused(f"{host} is a metadata service")
    if PRIVATE_NAMES.fullmatch(host) and not private:
        raise Refused(f"{host} is a name of a private network")
    if NUMBER.fullmatch(host.rpartition(".")[2]) and not _is_ipv4(host):
        raise Refused(f"{host} is no address as it is usually written, such as 192.0.2.1")


def _is_ipv4(host: str) -> bool:
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True


def _host_and_port(entry: str) -> tuple[str, int | None]:
    url = httpx.URL(f"any://{entry}")  # a scheme without a port of its own
    return url.raw_host.decode("ascii").lower().rstrip("."), url.port
