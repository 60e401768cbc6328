"""Errors as Daytona's API and the daemon in each sandbox say them."""

from aiohttp import web

from tests.support.cloud import Refused
from tests.support.machines.machine import MachineError, MachineGone

API, DAEMON, PROXY = "DAYTONA_API", "DAYTONA_DAEMON", "DAYTONA_PROXY"
NOT_STARTED = "bad request: no IP address found. Is the Sandbox started?"
FILE_CODES = {
    "ENOENT": (404, "FILE_NOT_FOUND"),
    "EACCES": (403, "FILE_ACCESS_DENIED"),
    "EROFS": (403, "FILE_ACCESS_DENIED"),
}


def problem(status: int, message: str, code: str, source: str = API) -> web.Response:
    body = {"statusCode": status, "message": message, "code": code, "source": source}
    return web.json_response(body, status=status)


def refusal(status: int, message: str, code: str, source: str = API) -> Refused:
    return Refused(problem(status, message, code, source))


def file_refusal(error: MachineError) -> Refused:
    status, code = FILE_CODES.get(error.code, (400, "INVALID_FILE_PATH"))
    return refusal(status, str(error), code, DAEMON)


def gone_refusal(_: MachineGone) -> Refused:
    return refusal(502, "bad gateway: the sandbox did not answer", "BAD_GATEWAY", PROXY)
