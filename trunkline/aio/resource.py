"""What resources are made of."""

from typing import Any, ClassVar, Generic, TypeVar

from trunkline.aio.http import AsyncHttp, AsyncPages
from trunkline.models import Row
from trunkline.requests import at, given, if_match

R = TypeVar("R", bound=Row)


class AsyncResource:
    def __init__(self, http: AsyncHttp) -> None:
        self._http = http


class AsyncRows(AsyncResource, Generic[R]):
    """Rows of the catalogue that are listed, made, read, changed and deleted: `path` and `model` say which.

    Fields are those of the HTTP API (/docs of a running server). A `version` makes a change or a deletion fail with
    Conflict where the row is another one by now.
    """

    path: ClassVar[str]
    model: type[R]

    def list(self, **filters: Any) -> AsyncPages[R]:
        """Newest first."""
        return self._http.pages(self.model, at(self.path), given(**filters))

    async def get(self, id: str) -> R:
        return await self._http.get(self.model, at(self.path, id))

    async def create(self, *, idempotency_key: str | None = None, **fields: Any) -> R:
        return await self._http.post(self.model, at(self.path), fields, key=idempotency_key)

    async def update(self, id: str, *, version: int | None = None, **fields: Any) -> R:
        """Only the fields given change."""
        return await self._http.patch(self.model, at(self.path, id), fields, if_match(version))

    async def delete(self, id: str, *, version: int | None = None) -> None:
        await self._http.delete(at(self.path, id), if_match(version))
