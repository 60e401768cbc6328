"""Errors as E2B's control plane and envd's file routes say them."""

from aiohttp import web

from tests.support.cloud import Refused


def problem(status: int, message: str) -> web.Response:
    return web.json_response({"code": status, "message": message}, status=status)


def refusal(status: int, message: str) -> Refused:
    return Refused(problem(status, message))
