"""What E2B's proxy does with requests for the ports of a sandbox: `PORT-ID.domain`, or the same in two headers."""

import re
from dataclasses import dataclass

from aiohttp import web

from tests.support.e2b_double.box import ENVD_PORT, Box
from tests.support.preview import is_open, proxy

HOST = re.compile(r"(\d+)-([a-z0-9]+)\.")


@dataclass(frozen=True, slots=True)
class Address:
    sandbox_id: str
    port: int


def address_of(request: web.Request) -> Address | None:
    """The port that a request is for; None when it is for the control plane or for envd."""
    if named := HOST.match(request.headers.get("Host", "")):
        return Address(named[2], int(named[1]))
    port = int(request.headers.get("E2b-Sandbox-Port", ENVD_PORT))
    return None if port == ENVD_PORT else Address(request.headers["E2b-Sandbox-Id"], port)


async def serve_traffic(request: web.Request, box: Box | None, address: Address) -> web.StreamResponse:
    """`box` None: there is none that runs."""
    if box is None:
        return not_found(address.sandbox_id)
    if not box.public and request.headers.get("E2b-Traffic-Access-Token") != box.traffic_token:
        return web.json_response({"message": "Sandbox is secured with traffic access token"}, status=403)
    if not await is_open(box.machine, address.port):
        told = {"sandboxId": box.id, "message": "The sandbox is running but port is not open", "port": address.port}
        return web.json_response({**told, "code": 502}, status=502)
    return await proxy(request, box.machine, address.port, request.path_qs)


def not_found(sandbox_id: str) -> web.Response:
    told = {"sandboxId": sandbox_id, "message": "The sandbox was not found", "code": 502}
    return web.json_response(told, status=502)
