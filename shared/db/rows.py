"""What queries about rows share: whose they are, pages of them, newest first, and what is stale."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import ColumnElement, Select, Table, and_, or_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.errors import AppError, ErrorCode
from shared.tenant import Tenant

T = TypeVar("T")

Get: TypeAlias = Callable[[AsyncConnection, Tenant, str], Awaitable[T | None]]
"""A row by its id, as a tenant sees it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page ends: its last row's time and id."""

    at: datetime
    id: str


def of_tenant(table: Table, tenant: Tenant, *, project: str = "project") -> ColumnElement[bool]:
    """Those of its rows that the tenant sees. `project`: the column that has a row's."""
    mine = table.c.workspace == tenant.workspace
    return mine if tenant.project is None else and_(mine, table.c[project] == tenant.project)


def newest_first(query: Select[Any], table: Table, after: Place | None, limit: int, *, time: str) -> Select[Any]:
    """The query's rows by `time`, its column, and id; those that come after a place."""
    at, id_ = table.c[time], table.c.id
    if after is not None:
        query = query.where(or_(at < after.at, and_(at == after.at, id_ < after.id)))
    return query.order_by(at.desc(), id_.desc()).limit(limit)


def insert(c: AsyncConnection, table: Table) -> Any:
    """An INSERT that can say what is to be where a row is there already. Both databases have it, in the same words."""
    dialect: Any = sqlite if c.dialect.name == "sqlite" else postgresql
    return dialect.insert(table)


def stale(expected: int | None, now: int) -> AppError:
    return AppError(
        ErrorCode.CONFLICT, f"It was changed meanwhile: version {expected} was expected, it has {now}. Read it again."
    )
