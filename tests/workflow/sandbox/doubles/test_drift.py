"""What the doubles serve are calls that the pinned clients make: a path that the SDK has left shows here."""

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from aiohttp import web

from tests.support.cloud import Cloud
from tests.support.daytona_double import DaytonaDouble
from tests.support.e2b_double import E2BDouble

e2b = pytest.importorskip("e2b")
daytona = pytest.importorskip("daytona")

ENVD_FILES = {"GET /files", "POST /files", "GET /health"}
"""Called by hand-written code of the SDK, by these constants: e2b/envd/api.py."""


def served(double: Cloud, *prefixes: str) -> set[str]:
    """ "METHOD /path" of every route, parameters as {}, without the prefix that the double's own address has."""
    found = set()
    for route in double.routes():
        assert isinstance(route, web.RouteDef)
        path = next((route.path.removeprefix(each) for each in prefixes if route.path.startswith(each)), route.path)
        found.add(f"{route.method} {plain(path)}")
    return found


def plain(path: str) -> str:
    return re.sub(r"\{\w+\}", "{}", path)


def sources(package: ModuleType, folder: str = "") -> Iterator[str]:
    assert package.__file__
    for path in (Path(package.__file__).parent / folder).rglob("*.py"):
        yield path.read_text()


def test_the_double_of_e2b_serves_calls_of_its_client() -> None:
    known = set(ENVD_FILES)
    for text in sources(e2b, "api/client/api"):
        methods, urls = re.findall(r'"method": "(\w+)"', text), re.findall(r'"url": f?"(/[^"]*)"', text)
        known |= {f"{method.upper()} {plain(url)}" for method, url in zip(methods, urls, strict=True)}
    for text in sources(e2b, "envd"):
        for method, service in re.findall(r'name="(\w+)",\s*service_name="([\w.]+)"', text):
            known.add(f"POST /{service}/{method}")
    assert served(E2BDouble()) - known == set()


def test_the_double_of_daytona_serves_calls_of_its_client() -> None:
    known = set()
    for name in ("daytona_api_client_async", "daytona_toolbox_api_client_async"):
        for text in sources(import_module(name), "api"):
            calls = re.findall(r"method='(\w+)',\s*resource_path='([^']*)'", text)
            known |= {f"{method} {plain(path)}" for method, path in calls}
    assert served(DaytonaDouble(), "/api", "/toolbox/{box}") - known == set()
