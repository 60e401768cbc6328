"""Links to what runs in a sandbox, and what the model is told where there is nothing to link to."""

from dataclasses import replace
from typing import cast
from urllib.parse import parse_qs, urlsplit

import pytest

from shared import links
from shared.config import ApiSettings
from tests.workflow.tool.support import Caller
from workflow.sandbox.base import Endpoint
from workflow.sandbox.local import LocalSandbox

HTTP = "python3 -m http.server 5173"
ANSWERING = """python3 -c "
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response({status}); self.end_headers(); self.wfile.write(b'{body}' + self.headers['Host'].encode())
http.server.HTTPServer(('127.0.0.1', 5173), Handler).serve_forever()" """


async def test_a_link_opens_the_port_until_it_ends(call: Caller) -> None:
    await call("bash", command=HTTP, run_in_background=True)
    result = await call("expose_port", port=5173, path="/?a=b", label="shop", ttl_s=600)
    assert result.ok, result.content
    url = urlsplit(result.data["url"])
    assert (url.hostname, url.path, result.data["http_status"]) == (f"5173-{call.links.sandbox}.localhost", "/", 200)
    ticket = parse_qs(url.query)["ticket"][0]
    assert 590 < await links.seconds_left(call.links.client, call.links.sandbox, 5173, ticket) <= 600
    assert await links.seconds_left(call.links.client, call.links.sandbox, 5174, ticket) == 0
    assert not await links.public_seconds_left(call.links.client, call.links.sandbox, 5173)
    [(kind, event)] = result.events
    assert (kind, event["url"], event["label"]) == ("url", result.data["url"], "shop")
    for told in (result.data["url"], result.data["expires_at"], "http_status: 200"):
        assert told in result.content


async def test_a_server_that_is_slow_to_start_is_waited_for(call: Caller) -> None:
    await call("bash", command=f"sleep 1; {HTTP}", run_in_background=True)
    assert (await call("expose_port", port=5173)).ok


async def test_where_nothing_listens_the_model_sees_what_does_and_why(call: Caller) -> None:
    result = await call("expose_port", port=3000, wait_timeout_s=0)
    assert (result.ok, result.error_code) == (False, "not_listening")
    assert "run_in_background" in result.content
    await call("bash", command=HTTP, run_in_background=True)
    await call("expose_port", port=5173)
    await call("bash", command="seq 30; echo boom; exit 3", run_in_background=True)
    await call("bash_output", task_id="bg_2", block=True)
    result = await call("expose_port", port=3000, wait_timeout_s=0)
    assert "These are listened on: 5173." in result.content
    assert "bg_2 failed, exit code 3" in result.content
    assert result.content.endswith("\n29\n30\nboom")
    assert "\n11\n" not in result.content


async def test_a_server_that_has_ended_is_not_waited_for(call: Caller) -> None:
    await call("bash", command="sleep 0.5; echo no such module; exit 3", run_in_background=True)
    result = await call("expose_port", port=3000, wait_timeout_s=120)
    assert (result.ok, result.error_code) == (False, "not_listening")
    assert "no command is at work any more" in result.content
    assert "\nno such module\n" in result.content
    assert "bg_1 failed, exit code 3" in result.content


async def test_a_daemon_is_waited_for_though_its_command_has_ended(call: Caller) -> None:
    await call("bash", command=f"(sleep 2; exec setsid {HTTP}) >/dev/null 2>&1 &")
    assert (await call("expose_port", port=5173)).ok


async def test_what_speaks_no_http_is_no_page(call: Caller) -> None:
    script = "import socket; s=socket.create_server(('127.0.0.1', 5173)); s.accept()[0].send(b'SSH-2.0')"
    await call("bash", command=f'python3 -c "{script}"', run_in_background=True)
    assert (await call("expose_port", port=5173)).error_code == "not_http"


async def test_a_server_that_refuses_the_host_is_told_how_to_allow_it(call: Caller) -> None:
    body = "Blocked request. This host is not allowed. Use server.allowedHosts: "
    await call("bash", command=ANSWERING.format(status=403, body=body), run_in_background=True)
    result = await call("expose_port", port=5173)
    assert result.error_code == "host_not_allowed"
    assert "allowedHosts: ['.localhost']" in result.content


async def test_a_page_that_is_an_error_gets_its_link_and_a_word(call: Caller) -> None:
    await call("bash", command=ANSWERING.format(status=500, body=""), run_in_background=True)
    result = await call("expose_port", port=5173)
    assert (result.ok, result.data["http_status"]) == (True, 500)
    assert "the server's log" in result.content


async def test_a_port_is_public_only_where_that_is_allowed(call: Caller) -> None:
    await call("bash", command=HTTP, run_in_background=True)
    assert (await call("expose_port", port=5173, public=True)).error_code == "public_not_allowed"
    call.links = replace(call.links, settings=ApiSettings(public_links=True))
    assert (await call("expose_port", port=5173, public=True)).ok
    assert await links.public_seconds_left(call.links.client, call.links.sandbox, 5173)


async def test_the_daemons_ports_are_reserved(call: Caller) -> None:
    assert (await call("expose_port", port=49983)).error_code == "reserved_port"


@pytest.mark.parametrize("path", ["x", "/a b", "/\r\nX: y", "/'; touch /workspace/evil; '"])
async def test_a_path_is_a_path_and_nothing_more(call: Caller, path: str) -> None:
    assert (await call("expose_port", port=5173, path=path, wait_timeout_s=0)).ok is False
    assert "evil" not in (await call("ls")).content


def serve_elsewhere(call: Caller, root: str = "", *, public: bool) -> None:
    """Ports are the provider's from now on."""

    class Remote(LocalSandbox):
        async def expose(self, port: int, seconds: int) -> Endpoint | None:  # type: ignore[override]
            return Endpoint(f"https://{port}-x.e2b.example{root}", None, public)

    cast("LocalSandbox", call.box).__class__ = Remote


@pytest.mark.parametrize("root", ["", "/"])
async def test_a_providers_own_address_leads_to_the_page_that_was_asked_for(call: Caller, root: str) -> None:
    await call("bash", command=HTTP, run_in_background=True)
    serve_elsewhere(call, root, public=False)
    result = await call("expose_port", port=5173)
    assert result.data["url"] == "https://5173-x.e2b.example/"
    result = await call("expose_port", port=5173, path="//docs?page=2")
    assert result.data["url"] == "https://5173-x.e2b.example//docs?page=2"


async def test_a_providers_address_that_everybody_may_use_is_given_only_where_that_was_asked_for(call: Caller) -> None:
    await call("bash", command=HTTP, run_in_background=True)
    serve_elsewhere(call, public=True)
    call.links = replace(call.links, settings=ApiSettings(public_links=True))
    result = await call("expose_port", port=5173)
    [(_, event)] = result.events
    assert event["public"] is False
    assert "ticket=" in result.data["url"]
    assert "e2b.example" not in result.content
    result = await call("expose_port", port=5173, public=True)
    [(_, event)] = result.events
    assert event["public"] is True
    assert "everybody" in result.content


async def test_a_providers_signed_address_is_not_told_as_public(call: Caller) -> None:
    await call("bash", command=HTTP, run_in_background=True)
    serve_elsewhere(call, public=False)
    call.links = replace(call.links, settings=ApiSettings(public_links=True))
    result = await call("expose_port", port=5173, public=True)
    [(_, event)] = result.events
    assert event["public"] is False


async def test_a_server_is_asked_under_the_name_that_browsers_will_use(call: Caller) -> None:
    allowed = ANSWERING.replace("{status}", "200 if self.headers['Host'] == '5173-x.e2b.example' else 403")
    await call("bash", command=allowed.format(body="allowedHosts"), run_in_background=True)
    serve_elsewhere(call, public=False)
    assert (await call("expose_port", port=5173)).ok


async def test_the_advice_for_a_server_names_the_providers_domain(call: Caller) -> None:
    await call("bash", command=ANSWERING.format(status=403, body="allowedHosts"), run_in_background=True)
    serve_elsewhere(call, public=False)
    result = await call("expose_port", port=5173)
    assert result.error_code == "host_not_allowed"
    assert "allowedHosts: ['.e2b.example']" in result.content
