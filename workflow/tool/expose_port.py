"""Gives people a link to a port of the sandbox."""

import json
import shlex
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from typing import Any, ClassVar
from urllib.parse import urlsplit

from pydantic import Field

from shared import links
from shared.types import JSON
from workflow.sandbox.base import Command, Endpoint, Sandbox, Task
from workflow.tool.background import describe, short_command
from workflow.tool.base import Args, Effect, Tool, ToolContext, ToolResult, unwatched
from workflow.tool.display import printable, short_lines

EVENT = "url"
RESERVED = {3128: "the sandbox's proxy", 49983: "E2B's daemon", 2280: "Daytona's daemon"}
PUBLIC = (
    "Public links are switched off here (api.public_links). Call this again without `public`: whoever has the link "
    "gets in."
)
LOG_LINES = 20
IMPORT = "from workflow.sandbox.sandboxd_listening import listening\n"
MAX_PIECES = 200
PROBE_SECONDS = 60  # beyond the wait for the port: two tries of a slow server, and the start of Python
NOT_ALLOWED = ("allowedHosts", "Blocked request", "Invalid Host header", "DisallowedHost", "ALLOWED_HOSTS")


class ExposePortArgs(Args):
    port: int = Field(ge=1, le=65535, description="The port that the server listens on.")
    label: str | None = Field(
        None, max_length=80, description='What it is, for people, such as "the shop\'s web page".'
    )
    wait_timeout_s: int = Field(30, ge=0, le=120, description="How long to wait for the server to listen (default 30).")
    path: str = Field("/", max_length=2000, pattern=r"^/[!-~]*$", description='The page to open (default "/").')
    public: bool = Field(False, description="Let everybody in without the ticket. Only where the user asked for it.")
    ttl_s: int = Field(
        3600, ge=60, le=links.MAX_SECONDS, description="How long the link is good, in seconds (default 3600)."
    )


@dataclass(frozen=True, slots=True)
class _Probe:
    """What the port does. `status` 0: it gives no HTTP answer. `alone`: nobody was left who could listen."""

    ports: list[int]
    status: int
    body: str
    problem: str
    alone: bool = False


class UrlExposeTool(Tool[ExposePortArgs]):
    """A second call makes a second link to the same pages: nothing that anybody could mind."""

    name: ClassVar[str] = "expose_port"
    effect: ClassVar[Effect] = Effect.REPEATABLE
    Args = ExposePortArgs

    async def run(self, args: ExposePortArgs, ctx: ToolContext) -> ToolResult:
        if args.port in RESERVED:
            return ToolResult.error("reserved_port", f"Port {args.port} is {RESERVED[args.port]}. Use another one.")
        if args.public and not ctx.links.settings.public_links:
            return ToolResult.error("public_not_allowed", PUBLIC)
        sandbox = await ctx.sandbox()
        endpoint = await sandbox.expose(args.port, args.ttl_s)
        if endpoint and endpoint.public and not args.public:
            endpoint = None
        host = urlsplit(endpoint.url).netloc if endpoint else ctx.links.host(args.port)
        probe = await _probe(sandbox, ctx, args, host)
        return await _problem(sandbox, args, probe, host) or await _exposed(endpoint, ctx, args, probe.status)


async def _problem(sandbox: Sandbox, args: ExposePortArgs, probe: _Probe, host: str) -> ToolResult | None:
    if args.port not in probe.ports:
        return ToolResult.error("not_listening", await _nobody(sandbox, args, probe), {"ports": probe.ports})
    if probe.status == 0:
        return ToolResult.error(
            "not_http",
            f"Something listens on port {args.port}, but gives no HTTP answer ({probe.problem}). Only web servers "
            "can be exposed. If it is one, it may still be starting: look at its log, then call this again.",
        )
    if probe.status in (400, 403) and any(sign in probe.body for sign in NOT_ALLOWED):
        return ToolResult.error("host_not_allowed", _allow(host))
    return None


async def _exposed(endpoint: Endpoint | None, ctx: ToolContext, args: ExposePortArgs, status: int) -> ToolResult:
    if endpoint:
        url, expires, public = endpoint.url.removesuffix("/") + args.path, endpoint.expires_at, endpoint.public
    else:
        url, expires = await ctx.links.issue(args.port, args.path, seconds=args.ttl_s, public=args.public)
        public = args.public
    expires_at = datetime.fromtimestamp(expires, UTC).isoformat(timespec="seconds") if expires else None
    data: JSON = {"url": url, "expires_at": expires_at, "http_status": status, "port": args.port}
    content = f"{url}\nexpires_at: {expires_at or 'with the sandbox'}\nhttp_status: {status}"
    if public:
        content += "\npublic: everybody who knows the address gets in, without a ticket"
    if status >= 400:
        content += "\nThe page itself is an error: look at the server's log before you give the link to anybody."
    event = {**data, "label": args.label, "public": public}
    return ToolResult(ok=True, content=content, data=data, events=[(EVENT, event)])


async def _probe(sandbox: Sandbox, ctx: ToolContext, args: ExposePortArgs, host: str) -> _Probe:
    """`host`: what browsers will send. Raises SandboxRefused where the sandbox has no Python 3."""
    words = shlex.join([str(args.port), str(args.wait_timeout_s), host, args.path])
    text = f"python3 - {words} <<'END_OF_PROBE'\n{_program()}\nEND_OF_PROBE"
    command = Command(ctx.key, ctx.epoch, text, cwd="/", timeout_seconds=args.wait_timeout_s + PROBE_SECONDS)
    result = await sandbox.exec(command, unwatched)
    return _parsed(result.output.head + result.output.tail)


def _program() -> str:
    """The probe and what it imports, as one text."""
    probe = resources.files("workflow.tool").joinpath("expose_port_probe.py").read_text("utf-8")
    return probe.replace(
        IMPORT, resources.files("workflow.sandbox").joinpath("sandboxd_listening.py").read_text("utf-8")
    )


def _parsed(output: str) -> _Probe:
    """An agent's processes can meddle with it, and then it is their own agent that they mislead."""
    try:
        told: Any = json.loads(output)
        ports = [port for port in told["ports"] if isinstance(port, int)]
        status = told.get("status")
        status = status if isinstance(status, int) else 0
        return _Probe(ports, status, str(told.get("body")), str(told.get("problem")), told.get("alone") is True)
    except (ValueError, TypeError, KeyError, AttributeError):
        return _Probe([], 0, "", output[:500])


async def _nobody(sandbox: Sandbox, args: ExposePortArgs, probe: _Probe) -> str:
    ports = ", ".join(map(str, probe.ports))
    others = f"These are listened on: {ports}." if ports else "Nor does anything on another port."
    why = ", and no command is at work any more that could" if probe.alone else f" after {args.wait_timeout_s} s"
    text = f"Nothing listens on port {args.port}{why}. {others}"
    tasks = await sandbox.tasks()
    if not tasks:
        return f"{text} There is no background task: start the server by bash with run_in_background."
    last = tasks[-1]
    return f"{text} The end of what the last background task wrote ({describe(last)}: {short_command(last)}):\n" + (
        await _end_of_log(sandbox, last)
    )


async def _end_of_log(sandbox: Sandbox, task: Task) -> str:
    end, offset = "", 0
    for _ in range(MAX_PIECES):
        piece = await sandbox.task_output(task.task_id, offset)
        if not piece.text:
            break
        end, offset = (end + piece.text)[-64_000:], piece.next_offset
    lines = short_lines(printable(end)).splitlines()[-LOG_LINES:]
    return "\n".join(lines) or "(nothing)"


def _allow(host: str) -> str:
    name = host.partition(":")[0]
    domain = name.partition(".")[2]
    return (
        f"The server refuses the host name of its pages, {name}. Allow it and restart the server. "
        f"Vite: `server: {{ allowedHosts: ['.{domain}'] }}` in vite.config (or `preview:` for vite preview). "
        f"Next.js: `allowedDevOrigins: ['*.{domain}']` in next.config. "
        f"webpack: `devServer: {{ allowedHosts: ['.{domain}'] }}`. "
        f"Django: `ALLOWED_HOSTS = ['.{domain}']`. Then call this again."
    )
