"""The rows of one table, as dataclasses with a field for each of its columns. What is read is what a tenant sees.

For what people make and change. Others have queries of their own: workspaces are the tenants and no tenant's, a key has
no version and a digest that nobody reads, messages and versions of contexts are an agent's and found by it.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from sqlalchemy import ColumnElement, Select, Table, and_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.db.rows import Place, newest_first, of_tenant, stale
from shared.errors import AppError, ErrorCode
from shared.ids import is_row_id
from shared.tenant import Tenant

FOREIGN_KEY = "23503"
UNIQUE = "23505"


class Row(Protocol):
    """A dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def id(self) -> str: ...
    @property
    def workspace(self) -> str: ...
    @property
    def version(self) -> int: ...


T = TypeVar("T", bound=Row)


class Rows(Generic[T]):
    """`make`: a row of its columns by name. `noun`: what it is to people. `project`: the column that has a row's."""

    def __init__(self, table: Table, make: Callable[..., T], noun: str, *, project: str = "project") -> None:
        self.table = table
        self.noun = noun
        self._make = make
        self._project = project

    async def get(self, c: AsyncConnection, tenant: Tenant, row_id: str, *, to_change: bool = False) -> T | None:
        """`to_change`: nobody else changes it before this transaction ends."""
        if not is_row_id(row_id):  # Postgres takes not every text
            return None
        query = select(self.table).where(self._of(tenant), self.table.c.id == row_id)
        found = await self.all(c, query.with_for_update() if to_change else query)
        return found[0] if found else None

    async def existing(self, c: AsyncConnection, tenant: Tenant, row_id: str, *, to_change: bool = False) -> T:
        """As `get`. Raises AppError NOT_FOUND, for a row of another tenant too."""
        row = await self.get(c, tenant, row_id, to_change=to_change)
        if row is None:
            raise AppError(ErrorCode.NOT_FOUND, f"There is no {self.noun} {row_id[:100]}.")
        return row

    async def page(
        self,
        c: AsyncConnection,
        tenant: Tenant,
        only: Mapping[str, Any],
        *,
        after: Place | None = None,
        limit: int,
        skip: int = 0,
    ) -> list[T]:
        """Newest first, those whose columns have the values of `only`; None there: whatever it is."""
        wanted = [self.table.c[name] == value for name, value in only.items() if value is not None]
        query = select(self.table).where(self._of(tenant), *wanted)
        return await self.all(c, newest_first(query, self.table, after, limit, time="created_at").offset(skip))

    async def all(self, c: AsyncConnection, query: Select[Any]) -> list[T]:
        return [self._make(**row) for row in (await c.execute(query)).mappings()]

    async def add(self, c: AsyncConnection, row: T) -> T:
        """Idempotent by id: returns the one that is there. Raises AppError as `understood`."""
        try:
            async with c.begin_nested():
                await c.execute(self.table.insert().values(**asdict(row)))
        except IntegrityError as error:
            if (known := await self.get(c, Tenant(row.workspace), row.id)) is None:
                raise self.understood(error) from error
            return known
        return row

    async def change(self, c: AsyncConnection, row: T, values: Mapping[str, Any], *, expected: int | None = None) -> T:
        """`row` as read in this transaction, to be changed. Returns it with a new version.

        Raises AppError CONFLICT where its version is not the expected one, and as `understood`.
        """
        self.check_version(row, expected)
        changed = {**values, "version": row.version + 1, "updated_at": datetime.now(UTC)}
        query = self.table.update().where(self.at(row.workspace, row.id)).values(**changed).returning(self.table)
        try:
            return self._make(**(await c.execute(query)).mappings().one())
        except IntegrityError as error:
            raise self.understood(error) from error

    async def delete(self, c: AsyncConnection, row: T, *, expected: int | None = None) -> None:
        """With what goes with it. Raises AppError CONFLICT: another version, or something else is of it."""
        self.check_version(row, expected)
        try:
            await c.execute(self.table.delete().where(self.at(row.workspace, row.id)))
        except IntegrityError as error:
            detail = f"Something else still needs {self.noun} {row.id}: change or delete that first."
            raise AppError(ErrorCode.CONFLICT, detail) from error

    def check_version(self, row: T, expected: int | None) -> None:
        """Raises AppError CONFLICT where it is another one than whoever changes the row has read."""
        if expected not in (None, row.version):
            raise stale(expected, row.version)

    def at(self, workspace: str, row_id: str) -> ColumnElement[bool]:
        return and_(self.table.c.workspace == workspace, self.table.c.id == row_id)

    def _of(self, tenant: Tenant) -> ColumnElement[bool]:
        return of_tenant(self.table, tenant, project=self._project)

    def understood(self, error: IntegrityError) -> AppError:
        """CONFLICT for a name that is taken, INVALID_REQUEST for the id of something that is not there.

        Reraises what is neither.
        """
        state, text = getattr(error.orig, "sqlstate", None), str(error.orig)
        if state == UNIQUE or "UNIQUE constraint failed" in text:
            return AppError(ErrorCode.CONFLICT, f"There is a {self.noun} of this name already.")
        if state == FOREIGN_KEY or "FOREIGN KEY constraint failed" in text:
            detail = f"The {self.noun} names something that is not there any more. Try again."
            return AppError(ErrorCode.INVALID_REQUEST, detail)
        raise error
