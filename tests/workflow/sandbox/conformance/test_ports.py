"""Ports of a sandbox, whoever provides it."""

from urllib.parse import urlsplit

import httpx
import pytest

from tests.workflow.sandbox.conformance.box import Box

SERVER = "echo from inside > index.html; python3 -m http.server 8000 --bind 127.0.0.1"
LISTENS = "for i in $(seq 100); do (: < /dev/tcp/127.0.0.1/8000) 2> /dev/null && break; sleep 0.1; done"


async def test_a_port_is_served_by_its_provider_or_by_the_gateway(box: Box, request: pytest.FixtureRequest) -> None:
    endpoint = await box.sandbox.expose(8000, 60)
    if request.node.callspec.id in ("local", "docker", "e2b", "e2b_double"):
        assert endpoint is None
        return
    assert endpoint is not None
    await box.run(SERVER, background=True)
    await box.run(LISTENS)
    address = urlsplit(endpoint.url)
    # Browsers resolve every name below localhost, other programs do not.
    host = "127.0.0.1" if str(address.hostname).endswith(".localhost") else address.hostname
    url = address._replace(netloc=f"{host}:{address.port}").geturl() if address.port else endpoint.url
    async with httpx.AsyncClient(follow_redirects=True) as client:
        answer = await client.get(url, headers={"Host": address.netloc})
    assert (answer.status_code, answer.text) == (200, "from inside\n")
