"""The HTTP side of the remote host: of the sandbox host's operations those that gateways ask for (wire.py)."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from workflow.sandbox import wire
from workflow.sandbox.guard import body_of, guarded, no_operation, told
from workflow.sandbox.remote import RemoteSandbox
from workflow.sandbox.remotes import Remotes
from workflow.sandbox.transfers import Transfers
from workflow.sandbox.tunnel import Tunnel


async def _list(sandbox: RemoteSandbox, request: wire.List) -> Any:
    return await sandbox.list(request.path, request.depth, request.ignore, request.limit)


async def _stat(sandbox: RemoteSandbox, request: wire.Stat) -> Any:
    return await sandbox.stat(request.path)


OPERATIONS: dict[str, tuple[type[Any], Callable[[RemoteSandbox, Any], Awaitable[Any]]]] = {
    "list": (wire.List, _list),
    "stat": (wire.Stat, _stat),
}


@dataclass(frozen=True, slots=True)
class RemoteApi:
    """The routes."""

    remotes: Remotes

    def app(self, token: str) -> ASGIApp:
        transfers = Transfers(self.remotes.transfer)
        routes = [
            Route("/health", self.health),
            Route("/sandboxes/{thread_id}", self.look),
            Route("/sandboxes/{thread_id}/outgoing", transfers.outgoing, methods=["POST"]),
            Route("/sandboxes/{thread_id}/incoming", transfers.incoming, methods=["POST"]),
            Route("/sandboxes/{thread_id}/ports/{port:int}", Tunnel(self.remotes.dial), methods=["POST"]),
            Route("/sandboxes/{thread_id}/{operation}", self.operate, methods=["POST"]),
        ]
        return guarded(routes, self.remotes.incarnation, token)

    async def health(self, _: Request) -> Response:
        return told({"status": "ok", "held": self.remotes.held})

    async def look(self, request: Request) -> Response:
        return told(wire.Existence(await self.remotes.exists(request.path_params["thread_id"])))

    async def operate(self, request: Request) -> Response:
        name = request.path_params["operation"]
        if name not in OPERATIONS:
            return no_operation(name)
        kind, operation = OPERATIONS[name]
        asked = wire.adapter(kind).validate_json(await body_of(request))
        async with self.remotes.used(request.path_params["thread_id"]) as sandbox:
            return told(await operation(sandbox, asked))
