"""Databases with today's schema, made once and copied for each test."""

import itertools
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.db.engine import Database
from shared.db.schema import upgrade
from tests.support.postgres import Postgres


class SqliteDatabases:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()
        self._template = folder / "template.db"

    async def new(self) -> str:
        """The URL of one that nobody else uses."""
        path = self._folder / f"{next(self._numbers)}.db"
        await self.put(path)
        return sqlite_url(path)

    async def put(self, path: Path) -> None:
        if not self._template.exists():
            await _migrate(sqlite_url(self._template))
        shutil.copy(self._template, path)


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
