"""Databases with today's schema, made once and copied for each test."""

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from shared.db.engine import Database
from shared.db.schema import upgrade
from tests.support.postgres import Postgres

ROOT = Path(__file__).resolve().parents[2]


@cache
def _template() -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "template.db"
        command = [sys.executable, "-m", "shared.db", "upgrade"]
        environ = {**os.environ, "TRUNKLINE__DATABASE__URL": sqlite_url(path)}
        subprocess.run(command, env=environ, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        return path.read_bytes()


def put_database(folder: Path) -> None:
    """Where a stack with this data folder looks for it."""
    (folder / "trunkline.db").write_bytes(_template())


class SqliteDatabases:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()

    async def new(self) -> str:
        """The URL of one that nobody else uses."""
        path = self._folder / f"{next(self._numbers)}.db"
        path.write_bytes(_template())
        return sqlite_url(path)


class PostgresDatabases:
    def __init__(self, server: Postgres) -> None:
        self.server = server
        self._numbers = itertools.count()
        self._template: str | None = None

    async def new(self) -> str:
        """The URL of one that nobody else uses."""
        if self._template is None:
            self._template = await self._new("template")
            await _migrate(self.server.url(self._template))
        return self.server.url(await self._new("copy", f"TEMPLATE {self._template}"))

    async def new_empty(self) -> str:
        return self.server.url(await self._new("empty"))

    async def _new(self, name: str, options: str = "") -> str:
        name = f"{name}_{next(self._numbers)}"
        await self.server.execute(f"CREATE DATABASE {name} {options}")
        return name


def sqlite_url(path: Path) -> str:
    return f"sqlite+aiosqlite:///{path}"


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    server = Postgres()
    try:
        server.start()
        yield server
    finally:
        server.remove()


async def _migrate(url: str) -> None:
    database = Database(url)
    await upgrade(database)
    await database.close()
