"""The API's own description: errors as they are, the ways to authenticate, and pages to read it offline."""

import inspect
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.utils import get_flat_params
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.routing import APIWebSocketRoute, iter_route_contexts
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

from gateway.errors import PROBLEM_JSON
from gateway.follow_ups import add_links, describe_tags
from gateway.patterns import EVENT_ID
from gateway.scopes import scope_of
from shared.errors import ErrorCode
from shared.types import JSON, Scope

ASSETS = "/docs-assets"
ASSETS_PACKAGE = ("fastapi_offline", "static")

_MEANINGS = {
    400: "The request is wrong; `errors` lists each place and rule.",
    401: "No valid credentials.",
    403: "The credentials lack the scope, or are not for this.",
    404: "It is not there, or not the caller's; so with the workspace that is selected.",
    409: "In conflict with the present state, or the Idempotency-Key was used for another request.",
    412: "`If-Match` does not hold: the file is another one by now.",
    413: "The body is too large.",
    429: "The key has asked too often, or holds too many streams open. Try again after `Retry-After` seconds.",
    500: "Something failed inside; `request_id` finds it in the log.",
    501: "There is no such kind of agent, this installation offers no agents (`agents.enabled`), or it is not possible "
    "yet.",
    503: "Something that is needed is away: Redis, the SQL database, all workers, a model's provider. Nothing is lost: "
    "try again after `Retry-After` seconds.",
}
_ALWAYS = (401, 403, 404, 429, 500, 503)

_PROBLEM_SCHEMA: JSON = {
    "title": "Problem",
    "description": "An error (RFC 9457).",
    "type": "object",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What happened, and what to do about it."},
        "code": {"type": "string", "enum": [code.value for code in ErrorCode], "description": "Stable, for programs."},
        "request_id": {"type": "string", "description": "Finds the cause of a 500 in the service's log."},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["place", "detail"],
                "properties": {"place": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
    "examples": [
        {
            "type": "about:blank",
            "title": "Bad Request",
            "status": 400,
            "detail": "body.tusk: There is no such field.",
            "code": "invalid_request",
            "errors": [{"place": "body.tusk", "detail": "There is no such field."}],
        }
    ],
}

_SECURITY: JSON = {
    "key": {"type": "http", "scheme": "bearer", "description": "An API key, or a JWT."},
    "keyHeader": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
_SELECTORS: JSON = {
    "WorkspaceId": {
        "name": "X-Workspace-Id",
        "in": "header",
        "description": "Which of the caller's workspaces, by its id. Unset: that of the key. Also `?workspace_id=`.",
        "schema": {"type": "string"},
    },
    "WorkspaceSlug": {
        "name": "X-Workspace-Slug",
        "in": "header",
        "description": "The same by its slug. Also `?workspace_slug=`.",
        "schema": {"type": "string"},
    },
}
_TICKET: JSON = {
    "type": "apiKey",
    "in": "query",
    "name": "ticket",
    "description": "For streams, where no header can be sent: from POST /api/stream-tickets, good for a minute.",
}

_METRICS_TOKEN: JSON = {
    "type": "http",
    "scheme": "bearer",
    "description": "`metrics.token` of the configuration, where it is set.",
}

TAKES_TICKET: JSON = {"security": [{name: []} for name in (*_SECURITY, "ticket")]}

EVENT_SCHEMA: JSON = {
    "description": "One event. In OpenAPI 3.1 this is what the schema of a stream describes.",
    "type": "object",
    "required": ["data"],
    "properties": {
        "id": {"type": "string", "pattern": EVENT_ID, "description": "Where to resume from."},
        "event": {"type": "string"},
        "data": {"type": "string", "contentMediaType": "application/json", "contentSchema": {"type": "object"}},
        "retry": {"type": "integer"},
    },
}
_EVENT_EXAMPLE: JSON = {
    "id": "1732150000000-0",
    "event": "task_agent_execute",
    "data": '{"type":"run.queued","thread_id":"...","run_id":"...","step_id":null,"attempt":0,"time":"...","data":{}}',
}

EVENT_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-Sent Events. `data` is an event's JSON, `id` the place to resume from. Without an id: "
        "`waiting` (nothing has happened yet), `keep_alive`, `gap` (events that are nowhere any more) and `error` "
        "(408: the connection was idle or open for too long and is closed; 503: Redis is away, the stream waits). "
        "An event's data has at most 64 KiB: where it would have more, its longest fields are null and `FIELD_ref: "
        "{sha256, bytes}` stands for each (`data_ref` alone, where that is not enough). GET /api/runs/{run_id} has a "
        "run's input and output whole, GET /api/steps/{step_id} a step's output (the event names the step).",
        "content": {"text/event-stream": {"schema": EVENT_SCHEMA, "example": _EVENT_EXAMPLE}},
    },
    204: {"description": "The run has ended and `last_id` is its last event: there is no more to come."},
}
FLOW_STREAM: dict[int | str, dict[str, Any]] = {200: EVENT_STREAM[200]}
EVENTS: dict[int | str, dict[str, Any]] = {
    **EVENT_STREAM,
    200: {
        "description": "The events, as the Accept header wants them; the stream names them by their type.",
        "content": {
            **EVENT_STREAM[200]["content"],
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["items", "next_cursor"],
                    "properties": {
                        "items": {"type": "array", "items": {"type": "object"}},
                        "next_cursor": {"type": ["string", "null"]},
                    },
                }
            },
        },
    },
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The documented errors of an operation, those that any operation with a caller may answer included."""
    return public_errors(*statuses, *_ALWAYS)


def public_errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Those of an operation for everybody. Each refuses a body that is too large, even one that has no use for any."""
    content = {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": _MEANINGS[status], "content": content} for status in sorted({*statuses, 413})}


def describe(app: FastAPI) -> None:
    """Mends FastAPI's description: it would promise 422, which is never answered, and know of no keys."""
    made_by_fastapi = app.openapi

    def openapi() -> JSON:
        if app.openapi_schema is None:
            schema = made_by_fastapi()
            schemas = schema.setdefault("components", {}).setdefault("schemas", {})
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
            assert "Problem" not in schemas, "a model has the name of the errors"
            schemas["Problem"] = _PROBLEM_SCHEMA
            schema["components"]["securitySchemes"] = {
                **_SECURITY,
                "ticket": _TICKET,
                "metricsToken": _METRICS_TOKEN,
            }
            schema["components"]["parameters"] = _SELECTORS
            schema["x-websockets"] = sockets_of(app)
            scopes = {
                getattr(route, "operation_id", None): scope_of(route) for route in iter_route_contexts(app.routes)
            }
            for path in schema["paths"].values():
                for operation in path.values():
                    operation["responses"].pop("422", None)
                    _without_null(operation.get("parameters", []))
                    _state_access(operation, scopes[operation["operationId"]])
            add_links(schema)
            describe_tags(schema)
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def sockets_of(app: FastAPI) -> list[JSON]:
    """Its WebSockets, which OpenAPI has no words for: under each prefix, in the order in which they are matched."""
    found = []
    for context in iter_route_contexts(app.routes):
        route = context.original_route
        if not isinstance(route, APIWebSocketRoute):
            continue
        kinds: list[tuple[str, Any]] = [(each.alias, each.field_info) for each in get_flat_params(route.dependant)]
        parameters = [{"name": name, "in": kind.in_.value} for name, kind in kinds]
        summary = inspect.getdoc(route.endpoint)
        found.append({"path": context.path, "name": route.name, "summary": summary, "parameters": parameters})
    return found


def _without_null(parameters: list[JSON]) -> None:
    """One that may be left out is not one that may be null: an address and a header have no word for it."""
    for parameter in parameters:
        schema = parameter["schema"]
        kinds = [kind for kind in schema.pop("anyOf", []) if kind != {"type": "null"}]
        rest = kinds[0] if len(kinds) == 1 else {"anyOf": kinds} if kinds else {}
        parameter["schema"] = {**rest, **schema}


def _state_access(operation: JSON, scope: Scope | None) -> None:
    """What the operation asks of its caller, and how a workspace is selected."""
    if scope is None:
        operation.setdefault("security", [])
        return
    ways = operation.get("security", [{name: []} for name in _SECURITY])
    operation["security"] = [{name: [scope.value] for name in way} for way in ways]
    told = operation.get("description", "")
    operation["description"] = f"{told}\n\nScope: `{scope}`.".strip()
    selectors = [{"$ref": f"#/components/parameters/{name}"} for name in _SELECTORS]
    operation["parameters"] = [*operation.get("parameters", []), *selectors]


def serve_docs(app: FastAPI) -> None:
    """/docs and /redoc, with their scripts from a package: no page of ours needs another host."""
    app.mount(ASSETS, StaticFiles(packages=[ASSETS_PACKAGE]))
    icon = f"{ASSETS}/favicon.png"

    async def docs() -> HTMLResponse:
        page = get_swagger_ui_html(
            openapi_url="/openapi.json",
            title="Trunkline API",
            swagger_js_url=f"{ASSETS}/swagger-ui-bundle.js",
            swagger_css_url=f"{ASSETS}/swagger-ui.css",
            swagger_favicon_url=icon,
            swagger_ui_parameters={"validatorUrl": None},
        )
        return _only_from_here(page)

    async def redoc() -> HTMLResponse:
        page = get_redoc_html(
            openapi_url="/openapi.json",
            title="Trunkline API",
            redoc_js_url=f"{ASSETS}/redoc.standalone.js",
            redoc_favicon_url=icon,
            with_google_fonts=False,
        )
        return _only_from_here(page)

    app.add_api_route("/docs", docs, include_in_schema=False)
    app.add_api_route("/redoc", redoc, include_in_schema=False)


def _only_from_here(page: HTMLResponse) -> HTMLResponse:
    """The pages start by a script in themselves, and Redoc would load its maker's logo from the maker's host."""
    page.headers["Content-Security-Policy"] = (
        "default-src 'none'; connect-src 'self'; img-src 'self' data:; font-src 'self' data:; "
        "style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-inline'; worker-src blob:; frame-ancestors 'none'"
    )
    return page
