"""Error codes become HTTP statuses and RFC 9457 problem documents here, and nowhere else."""

import logging
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, TypeVar

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from fastapi.routing import RouteContext, iter_route_contexts
from pydantic import BaseModel, ValidationError
from redis.exceptions import RedisError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from shared.errors import AppError, ErrorCode, FieldError
from shared.redis import passes
from shared.types import JSON

log = logging.getLogger("trunkline.gateway")

PROBLEM_JSON = "application/problem+json"
CLIENT_CLOSED_REQUEST = 499
"""Only in the log: the client went away before the answer was complete."""
RETRY_SECONDS = 2.0

M = TypeVar("M", bound=BaseModel)

_STATUS = {
    ErrorCode.INVALID_REQUEST: 400,
    ErrorCode.UNSUPPORTED: 400,
    ErrorCode.UNAUTHORIZED: 401,
    ErrorCode.FORBIDDEN: 403,
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.METHOD_NOT_ALLOWED: 405,
    ErrorCode.STREAM_TIMEOUT: 408,
    ErrorCode.CONFLICT: 409,
    ErrorCode.IDEMPOTENCY_CONFLICT: 409,
    ErrorCode.PRECONDITION_FAILED: 412,
    ErrorCode.PAYLOAD_TOO_LARGE: 413,
    ErrorCode.RESULT_TOO_LARGE: 413,
    ErrorCode.RATE_LIMITED: 429,
    ErrorCode.NOT_IMPLEMENTED: 501,
    ErrorCode.UNAVAILABLE: 503,
}
_CODE_OF_STATUS = {
    401: ErrorCode.UNAUTHORIZED,
    403: ErrorCode.FORBIDDEN,
    404: ErrorCode.NOT_FOUND,
    405: ErrorCode.METHOD_NOT_ALLOWED,
    413: ErrorCode.PAYLOAD_TOO_LARGE,
}


def status_of(code: ErrorCode) -> int:
    return _STATUS.get(code, 500)


def problem(error: AppError, headers: Mapping[str, str] | None = None, **members: Any) -> Response:
    """The answer for an error. `members`: more of the document's members."""
    status = status_of(error.code)
    document = {"type": "about:blank", **members_of(error), **members}
    answer = Response(orjson.dumps(document), status, headers, PROBLEM_JSON)
    if error.retry_after is not None:
        answer.headers["Retry-After"] = str(math.ceil(error.retry_after))
    if status == 401:
        answer.headers["WWW-Authenticate"] = 'Bearer realm="trunkline"'
    return answer


def members_of(error: AppError) -> JSON:
    """Of its problem document, without the type."""
    status = status_of(error.code)
    members: JSON = {"title": HTTPStatus(status).phrase, "status": status, "detail": error.detail, "code": error.code}
    return {**members, "errors": error.errors} if error.errors else members


def internal_problem(request_id: str) -> Response:
    return problem(internal(request_id), request_id=request_id)


def internal(request_id: str) -> AppError:
    """For a crash: nothing of its cause, but the id under which the log has it."""
    detail = f"Something failed inside the service. Its log has the cause under request {request_id}."
    return AppError(ErrorCode.INTERNAL, detail)


def too_large(max_body_bytes: int) -> AppError:
    return AppError(ErrorCode.PAYLOAD_TOO_LARGE, f"The body is larger than the {max_body_bytes} bytes allowed.")


def redis_away() -> AppError:
    return AppError(
        ErrorCode.UNAVAILABLE, "Redis does not answer. Nothing is lost: try again soon.", retry_after=RETRY_SECONDS
    )


def add_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(AppError, _app_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(WebSocketRequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RedisError, _redis_error)
    app.router.default = _nowhere


async def _nowhere(_: Scope, __: Receive, ___: Send) -> None:
    """Where no path fits; for a WebSocket the framework would answer 403, without a word."""
    raise HTTPException(404)


async def _app_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, AppError)
    if error.code not in _STATUS:
        raise error
    return problem(error)


async def _redis_error(_: Request, error: Exception) -> Response:
    if not passes(error):
        raise error
    log.warning("Redis is away: %s", error)
    return problem(redis_away())


async def _http_error(request: Request, error: Exception) -> Response:
    """What the framework raises: unknown paths and methods, mostly."""
    assert isinstance(error, HTTPException)
    code = _CODE_OF_STATUS.get(error.status_code, ErrorCode.INVALID_REQUEST)
    detail, headers = str(error.detail), error.headers
    if code is ErrorCode.NOT_FOUND:
        detail = f"There is nothing at {request.url.path}. The API is described at /openapi.json."
    elif code is ErrorCode.METHOD_NOT_ALLOWED:
        headers = {"Allow": ", ".join(_allowed(request))}
        detail = f"{request.method} is not possible at {request.url.path}, only {headers['Allow']}."
    return problem(AppError(code, detail), headers)


def _allowed(request: Request) -> list[str]:
    """The methods of the request's path: the framework would name those of the first of its routes alone."""
    routes = [route for route in iter_route_contexts(request.app.routes) if _fits(route, request)]
    return sorted({method for route in routes if route.path == routes[0].path for method in route.methods or ()})


def _fits(route: RouteContext, request: Request) -> bool:
    return route.matches(request.scope)[0] is not Match.NONE


async def _invalid_request(_: Request, error: Exception) -> Response:
    assert isinstance(error, (RequestValidationError, WebSocketRequestValidationError))
    return problem(not_valid(error.errors()))


def parsed(model: type[M], document: Any, *place: str) -> M:
    """What stands at that place of a request. Raises AppError INVALID_REQUEST."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise not_valid([{**item, "loc": (*place, *item["loc"])} for item in error.errors()]) from error


def not_valid(items: Sequence[Any]) -> AppError:
    """Pydantic's errors, in plain words."""
    unsupported = any(item["type"] == ErrorCode.UNSUPPORTED for item in items)
    code = ErrorCode.UNSUPPORTED if unsupported else ErrorCode.INVALID_REQUEST
    return invalid([field_error(item) for item in items], code)


def invalid(errors: list[FieldError], code: ErrorCode = ErrorCode.INVALID_REQUEST) -> AppError:
    """A request with so many things wrong."""
    return AppError(code, "; ".join(f"{item['place']}: {item['detail']}" for item in errors[:5]), errors=errors)


def field_error(item: Mapping[str, Any]) -> FieldError:
    """One of pydantic's errors in plain words, with the place as a path: `body.parameters.max_turns`."""
    kind, place = item["type"], [str(part) for part in item["loc"]]
    match kind:
        case "json_invalid":
            return FieldError(place="body", detail=f"not JSON: {item['ctx']['error']} (at character {place[-1]})")
        case "extra_forbidden":
            return FieldError(place=".".join(place), detail="there is no such field")
        case "missing" if place == ["body"]:
            return FieldError(place="body", detail="a JSON object is needed here")
        case "model_attributes_type" | "model_type" | "dict_type" if place == ["body"]:
            detail = "should be a JSON object, sent as Content-Type: application/json"
            return FieldError(place="body", detail=detail)
        case "model_type":
            return FieldError(place=".".join(place), detail="should be a JSON object")
    return FieldError(place=".".join(place), detail=str(item["msg"]).removeprefix("Value error, "))
