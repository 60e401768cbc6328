"""The way out of local sandboxes: a proxy on the host's side, for connections that sandboxd accepts on the inside.

A sandbox has no network but its own loopback. Where the settings let it reach something, sandboxd listens there on
PROXY_PORT and hands each connection out, and what is asked for on it (proxy.py) is checked by a Guard. The host takes
connections, not the listening socket: whoever is inside could make that one block, and the host with it.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from shared.config import SandboxSettings
from shared.net.guard import Guard
from workflow.sandbox.base import Network, SandboxRefused
from workflow.sandbox.handed import Handed
from workflow.sandbox.link import LinkClosed
from workflow.sandbox.proxy import Proxy, Traffic

log = logging.getLogger("trunkline.sandbox")

PROXY_PORT = 3128
_URL = f"http://127.0.0.1:{PROXY_PORT}"
_HERE = "localhost,127.0.0.1,::1,sandbox"
# In both cases: curl takes the small ones alone for HTTP, others the large ones. Node asks for an invitation.
ENVIRONMENT = {
    **{"HTTP_PROXY": _URL, "HTTPS_PROXY": _URL, "NO_PROXY": _HERE},
    **{"http_proxy": _URL, "https_proxy": _URL, "no_proxy": _HERE},
    "NODE_USE_ENV_PROXY": "1",
}
PAUSE_SECONDS = 0.05  # after a connection that did not come out
NAMED_REFUSALS = 50  # in the log, of one life of a sandbox

Accept = Callable[[], Awaitable[Handed | None]]
Reach = Callable[[], Network]


def network_of(settings: SandboxSettings) -> Network:
    """What sandboxes reach, whoever provides them."""
    hosts = tuple(settings.allowed_hosts) if settings.network == "allow" else ()
    return Network(settings.network, hosts, proxy=settings.provider == "local")


def narrowed(settings: SandboxSettings, hosts: Sequence[str] | None) -> Network:
    """What a sandbox reaches whose run names the hosts; None: it names none. Raises SandboxRefused."""
    network = network_of(settings)
    if hosts is None:
        return network
    if beyond := settings.beyond(hosts):
        raise SandboxRefused(f"sandboxes may not reach {', '.join(beyond)}: see sandbox.network")
    return replace(network, policy="allow" if hosts else "none", hosts=tuple(hosts))


@dataclass(slots=True)
class _Life:
    """What is known of one sandbox's traffic, from its start to its end."""

    name: str
    traffic: Traffic = field(default_factory=Traffic)
    refused: set[str] = field(default_factory=set)

    def note_refusal(self, text: str) -> None:
        if text not in self.refused and len(self.refused) < NAMED_REFUSALS:
            self.refused.add(text)
            log.warning("sandbox %s: %s", self.name, text)


@dataclass(frozen=True, slots=True)
class Egress:
    """Of all sandboxes of one host."""

    settings: SandboxSettings

    @classmethod
    def of(cls, settings: SandboxSettings) -> Self | None:
        """None where sandboxes reach nothing."""
        if settings.network == "none":
            return None
        return cls(settings)

    def _proxy(self, network: Network) -> Proxy:
        hosts = None if network.policy == "open" else network.hosts
        guard = Guard(ports=self.settings.allowed_ports, private_hosts=self.settings.private_hosts, hosts=hosts)
        return Proxy(guard, network, self.settings.proxy_idle_seconds)

    async def serve(self, accept: Accept, name: str, reach: Reach) -> None:
        """The connections of one sandbox, until it ends. Each is under what `reach` says when it comes."""
        life = _Life(name)
        room = asyncio.Semaphore(self.settings.proxy_connections)
        try:
            async with asyncio.TaskGroup() as serving:
                while True:
                    await room.acquire()
                    if handed := await accept():
                        task = serving.create_task(self._serve(self._proxy(reach()), handed, life))
                        task.add_done_callback(lambda _: room.release())
                    else:
                        room.release()
                        await asyncio.sleep(PAUSE_SECONDS)
        except* LinkClosed:
            if (traffic := life.traffic).sent:
                message = "sandbox %s sent %s bytes through the proxy and received %s"
                log.info(message, name, traffic.sent, traffic.received)

    async def _serve(self, proxy: Proxy, handed: Handed, life: _Life) -> None:
        with handed, contextlib.suppress(OSError, TimeoutError):
            try:
                await proxy.serve(handed, life.traffic, life.note_refusal)
            except* (OSError, TimeoutError):
                pass
            except* Exception:  # the sandbox's other connections go on
                log.exception("a connection out of sandbox %s failed", life.name)
