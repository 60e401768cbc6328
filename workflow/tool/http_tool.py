"""An HTTP request as a tool: what a definition says, with a call's arguments put in."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx
import orjson

from shared.config.tools import HttpCall, ToolDefinition
from shared.net.client import BodyRefused, guarded_client, read_capped
from shared.net.guard import Guard, Refused
from shared.secrets import VARIABLE
from shared.tool_rules import FIELD
from shared.types import JSON
from workflow.tool.base import Effect, OutcomeUnknown, ToolContext, ToolResult
from workflow.tool.defined import DefinedTool
from workflow.tool.display import cut_middle
from workflow.tool.masking import MASK, Masks
from workflow.tool.schema_tool import GivenArgs
from workflow.web.web import Web

MAX_RESPONSE_BYTES = 5 * 1024**2
READ_SECONDS = 60.0
ERROR_CHARS = 4_000
EITHER = re.compile(r"(\$?)\{(\w+)\}")
BODILESS = ("GET", "DELETE")


class HttpTool(DefinedTool):
    """`secrets`: the variables that its templates name. The server's words are fenced, and show no secret."""

    untrusted = True

    def __init__(self, name: str, definition: ToolDefinition, call: HttpCall, secrets: Mapping[str, str]) -> None:
        super().__init__(name, definition)
        self._call = call
        self._secrets = secrets
        self._masked = Masks(secrets.values()).masked

    def guard(self, web: Web) -> Guard:
        """What decides where its requests may go."""
        return web.services

    async def run(self, args: GivenArgs, ctx: ToolContext) -> ToolResult:
        try:
            request = build_request(self._call, args.fields, self._secrets)
        except ValueError as error:
            return ToolResult.error("invalid_arguments", f"{self.name} was not called: {error}.")
        if self._call.method not in BODILESS or self.effect is not Effect.REPEATABLE:
            request.headers["Idempotency-Key"] = ctx.effect_key
        data: JSON = {"method": self._call.method, "url": self._shown_address(args.fields)}
        try:
            status, body = await _sent(request, self.guard(ctx.web))
        except (httpx.ConnectError, httpx.ConnectTimeout, Refused) as error:
            text = f"{self.name} was not called: {self._masked(str(error)) or 'its server cannot be reached'}."
            return ToolResult.error("http_not_sent", text, data)
        except (httpx.HTTPError, BodyRefused) as error:
            text = f"{self.name} was called, but {self._masked(str(error)) or type(error).__name__}."
            if self.effect is Effect.NONE:
                raise OutcomeUnknown(f"{text} Whether it took effect is not known.") from error
            return ToolResult.error("http_lost", f"{text} Call it again.", data)
        return self._answered(status, self._masked(body.decode("utf-8", "replace")), data | {"status": status})

    def _answered(self, status: int, text: str, data: JSON) -> ToolResult:
        if not 200 <= status < 300:
            shown = cut_middle(text, ERROR_CHARS, 0.6, "the rest is not kept")
            return ToolResult.error("http_error", f"{self.name} answered with status {status}:\n{shown}", data)
        try:
            output = orjson.loads(text) if text else None
        except ValueError:
            output = text
        return self.result("" if output is None else output, data)

    def _shown_address(self, fields: JSON) -> str:
        """As it is for a call with these arguments, but for its secrets."""
        address = str(address_of(self._call, fields, dict.fromkeys(self._secrets, MASK)))
        return self._masked(address.replace(quote(MASK), MASK))


async def _sent(request: httpx.Request, guard: Guard) -> tuple[int, bytes]:
    async with guarded_client(guard, seconds=READ_SECONDS) as client:
        request.headers["Accept-Encoding"] = "gzip"
        response = await client.send(request, stream=True)
        try:
            return response.status_code, await read_capped(response, MAX_RESPONSE_BYTES)
        finally:
            await response.aclose()


def build_request(call: HttpCall, fields: JSON, secrets: Mapping[str, str]) -> httpx.Request:
    """Raises ValueError for arguments that cannot be put in."""
    bodiless = call.method in BODILESS
    body = _filled(call.body, fields, secrets) if call.body is not None else None if bodiless else _others(call, fields)
    headers = {name: _text(text, fields, secrets) for name, text in call.headers.items() if _has(text, fields)}
    if wrong := [name for name, value in headers.items() if not value.isascii() or not value.isprintable()]:
        raise ValueError(f"the header {wrong[0]} would have characters that no header may have")
    return httpx.Request(call.method, address_of(call, fields, secrets), headers=headers, json=body)


def address_of(call: HttpCall, fields: JSON, secrets: Mapping[str, str]) -> httpx.URL:
    """Raises ValueError for arguments that cannot be put in."""
    query: dict[str, str] = {}
    if call.query is not None:
        query = {name: _text(text, fields, secrets) for name, text in call.query.items() if _has(text, fields)}
    elif call.method in BODILESS:
        query = {name: _plain(value) for name, value in _others(call, fields).items()}
    url = httpx.URL(_url(call.url, fields, secrets))
    return url.copy_merge_params(query) if query else url


def _others(call: HttpCall, fields: JSON) -> JSON:
    """The arguments that are not in its URL."""
    in_url = set(FIELD.findall(call.url))
    return {name: value for name, value in fields.items() if name not in in_url}


def _url(template: str, fields: JSON, secrets: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        text = _plain(fields.get(match[1], ""))
        if text in ("", ".", ".."):
            raise ValueError(f"{match[1]} is part of the address, and cannot be {text!r}")
        return quote(text, safe="")

    return VARIABLE.sub(lambda match: quote(secrets[match[1]], safe=""), FIELD.sub(value, template))


def _filled(template: Any, fields: JSON, secrets: Mapping[str, str]) -> Any:
    """A body's template; what stands for one field alone becomes its value, of whatever type, or is left out."""
    if isinstance(template, dict):
        present = {name: inner for name, inner in template.items() if _has(inner, fields)}
        return {name: _filled(inner, fields, secrets) for name, inner in present.items()}
    if isinstance(template, list):
        return [_filled(inner, fields, secrets) for inner in template if _has(inner, fields)]
    if not isinstance(template, str):
        return template
    if alone := FIELD.fullmatch(template):
        return fields[alone[1]]
    return _text(template, fields, secrets)


def _has(template: Any, fields: JSON) -> bool:
    """False for a template that is one field alone, and that is not given."""
    alone = FIELD.fullmatch(template) if isinstance(template, str) else None
    return alone is None or alone[1] in fields


def _text(template: str, fields: JSON, secrets: Mapping[str, str]) -> str:
    """In one pass, so that no argument can name a secret."""
    return EITHER.sub(lambda m: secrets[m[2]] if m[1] else _plain(fields.get(m[2], "")), template)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()
