"""API keys: made, listed, revoked. A key itself is shown once, when it is made."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Self

from fastapi import APIRouter, Response
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from gateway.deps import Admin, IdempotencyKey, Services, WithServices
from gateway.openapi import errors
from gateway.routes.answers import Page, Timestamp, locate
from gateway.routes.bodies import Name, RowBody
from gateway.routes.json_route import StrictJsonRoute
from gateway.routes.paging import Cursor, Limit, page_of, place_of
from shared.db import keys
from shared.db.keys import Key
from shared.db.rows import Place
from shared.errors import AppError, ErrorCode
from shared.ids import is_row_id, new_id
from shared.key_format import digest, new_key, shown
from shared.types import Scope

router = APIRouter(prefix="/keys", tags=["keys"], route_class=StrictJsonRoute)

LONGEST = timedelta(days=36_500)


def _in_the_future(time: datetime) -> datetime:
    now = datetime.now(UTC)
    if not now < time < now + LONGEST:
        raise ValueError("should be in the future, and within a hundred years")
    return time


class KeyBody(RowBody):
    name: Name = Field(description="What it is for, for people.")
    scopes: Annotated[list[Annotated[Scope, Field(strict=False)]], Field(min_length=1)] = Field(
        default=[Scope.READ, Scope.RUN], description="What it may do; `admin` has all the others."
    )
    project_id: str | None = Field(default=None, description="The only project that it is to see.")
    expires_at: Annotated[AwareDatetime, Field(strict=False), AfterValidator(_in_the_future)] | None = Field(
        default=None, description="Unset: when it is revoked."
    )

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "billing service", "scopes": ["read", "run"]}]})


class KeyAnswer(BaseModel):
    id: str
    name: str
    prefix: str = Field(description="How it begins.", examples=["tl_06f3k2m1"])
    scopes: list[Scope]
    project_id: str | None
    created_by: str | None = Field(description="The id of the key that made it.")
    created_at: Timestamp
    expires_at: Timestamp | None
    last_used_at: Timestamp | None = Field(description="Written with some delay, up to a minute.")
    revoked_at: Timestamp | None

    @classmethod
    def of(cls, key: Key) -> Self:
        return cls(
            id=key.id,
            name=key.name,
            prefix=key.prefix,
            scopes=sorted(key.scopes),
            project_id=key.project,
            created_by=key.created_by,
            created_at=key.created_at,
            expires_at=key.expires_at,
            last_used_at=key.last_used_at,
            revoked_at=key.revoked_at,
        )


class NewKeyAnswer(KeyAnswer):
    key: str | None = Field(
        default=None,
        description="The key. It is kept nowhere: null where the same request is sent again.",
        examples=["tl_0123456789abcdefghjkmnpqrstvwxyz_1b851995"],
    )


@router.post("", operation_id="createKey", summary="Make an API key", status_code=201, responses=errors(400, 409, 413))
async def create_key(
    body: KeyBody, services: WithServices, caller: Admin, response: Response, idempotency_key: IdempotencyKey = None
) -> NewKeyAnswer:
    """Of the caller's workspace. Whoever is limited to a project makes keys of that project."""
    project = await services.auth.workspaces.project_of(caller, body.project_id)
    request = ["key", body.model_dump(mode="json")]
    key_id = await services.idempotency.reserve(caller.tenant, idempotency_key, request, new_id())
    locate(response, "keys", key_id)
    key = new_key()
    new = Key(
        id=key_id,
        workspace=caller.workspace,
        project=project,
        name=body.name,
        prefix=shown(key),
        scopes=frozenset(body.scopes),
        created_by=caller.key_id,
        created_at=datetime.now(UTC),
        expires_at=body.expires_at,
        last_used_at=None,
        revoked_at=None,
    )
    async with services.db.begin() as c:
        made = await keys.add(c, new, digest(key).hex())
    return NewKeyAnswer(**KeyAnswer.of(made).model_dump(), key=key if made is new else None)


@router.get("", operation_id="listKeys", summary="The workspace's keys, newest first", responses=errors(400))
async def list_keys(services: WithServices, caller: Admin, limit: Limit = 50, cursor: Cursor = None) -> Page[KeyAnswer]:
    """Revoked ones too; those of the settings stand there only."""
    after = place_of(cursor)
    async with services.db.connect() as c:
        found = await keys.page(c, caller.workspace, project=caller.project, after=after, limit=limit + 1)
    return page_of(found, limit, KeyAnswer.of, lambda key: Place(key.created_at, key.id))


@router.get("/{key_id}", operation_id="getKey", summary="An API key", responses=errors(404))
async def get_key(key_id: str, services: WithServices, caller: Admin) -> KeyAnswer:
    return KeyAnswer.of(await _key_of(services, caller, key_id))


@router.delete("/{key_id}", operation_id="revokeKey", summary="Revoke an API key", responses=errors(404))
async def revoke_key(key_id: str, services: WithServices, caller: Admin) -> KeyAnswer:
    """For ever, and at once on every gateway. A key that is revoked already stays as it is."""
    key = await _key_of(services, caller, key_id)
    async with services.db.begin() as c:
        await keys.revoke(c, key.workspace, key.id, datetime.now(UTC))
    await services.auth.ring.revoke(services.redis, [key.id])
    return KeyAnswer.of(await _key_of(services, caller, key_id))


async def _key_of(services: Services, caller: Admin, key_id: str) -> Key:
    """Raises AppError NOT_FOUND, for a key of somebody else too."""
    key = None
    if is_row_id(key_id):
        async with services.db.connect() as c:
            key = await keys.get(c, caller.workspace, key_id)
    if key is None or not caller.sees(key.workspace, key.project):
        raise AppError(ErrorCode.NOT_FOUND, f"There is no key {key_id[:100]}.")
    return key
