"""Credentials -> who calls."""

import hashlib
import hmac
import math
import secrets
import time
from dataclasses import replace
from typing import Self

from redis.asyncio import Redis
from starlette.requests import HTTPConnection

from gateway.auth.failures import Failures, address_of
from gateway.auth.keyring import KeyRing
from gateway.auth.pages import Pages
from gateway.auth.principal import ALL_SCOPES, DEFAULT_WORKSPACE, LOCAL, Principal
from gateway.auth.tokens import Tokens
from gateway.auth.workspaces import Workspaces
from gateway.counters import Counters
from gateway.signing import Signer
from shared.config import Settings
from shared.config.types import LEAST_KEY_CHARS
from shared.db.engine import Database
from shared.errors import AppError, ErrorCode
from shared.ids import new_id
from shared.key_format import digest, is_key

SESSION_SECONDS = 14 * 24 * 3600
STREAM_TICKET_SECONDS = 60
TOKEN_DOTS = 2


def settings_keys(settings: Settings) -> list[str]:
    """The operator's keys, that of the key file first.

    Raises AppError(INVALID_CONFIG) when there is none at all, or one that can be guessed: others have what is signed
    with it (tickets, cookies), and may try keys on that for as long as they like.
    """
    keys = [key.get_secret_value() for key in settings.auth.keys]
    if settings.auth.enabled and settings.key_file.exists():
        keys.insert(0, settings.key_file.read_text().strip())
    if settings.auth.enabled and not any(keys):
        raise AppError(
            ErrorCode.INVALID_CONFIG,
            f"No API key: {settings.key_file} is not there and auth.keys is empty. scripts/up makes the file; "
            "else write a secret of your own into it, or set auth.enabled = false on a loopback address.",
        )
    if any(0 < len(key) < LEAST_KEY_CHARS for key in keys):
        raise AppError(
            ErrorCode.INVALID_CONFIG,
            f"The key in {settings.key_file} should have at least {LEAST_KEY_CHARS} characters: write one that nobody "
            "guesses into it, or delete it where scripts/up is to make another.",
        )
    return [key for key in keys if key]


class Authenticator:
    """The operator's keys are kept as their SHA-256 only."""

    def __init__(
        self,
        settings: Settings,
        keys: list[str],
        *,
        ring: KeyRing,
        failures: Failures,
        tokens: Tokens | None,
        workspaces: Workspaces,
    ) -> None:
        self.ring = ring
        self.workspaces = workspaces
        self._failures = failures
        self._jwt = tokens
        self._pages = Pages(settings)
        self._enabled = settings.auth.enabled
        self._digests = [digest(key) for key in keys]
        self._key_ids = [_key_id(each) for each in self._digests] or [LOCAL]
        # Without a key nobody is asked for a ticket or a cookie, so a secret that no other gateway knows will do.
        secret = keys[0].encode() if keys else secrets.token_bytes(32)
        self._sessions = Signer(secret, "session of a key")
        self._tickets = Signer(secret, "stream ticket")
        # Cookies are shared by all ports of a host, so that two stacks on one machine need two names.
        self.cookie_name = f"trunkline_{hashlib.sha256(b'cookie ' + secret).hexdigest()[:8]}"

    @classmethod
    def over(cls, settings: Settings, keys: list[str], db: Database, counters: Counters) -> Self:
        """`keys`: the operator's. Raises AppError INVALID_CONFIG."""
        failures = Failures(counters, settings.auth.max_failures)
        remember_seconds = settings.auth.remember_seconds
        return cls(
            settings,
            keys,
            ring=KeyRing(db, counters, failures, remember_seconds=remember_seconds),
            failures=failures,
            tokens=Tokens(settings.jwt) if settings.jwt.enabled else None,
            workspaces=Workspaces(db, remember_seconds=remember_seconds),
        )

    async def caller(self, connection: HTTPConnection, *, ticket: str | None = None) -> Principal:
        """Raises AppError UNAUTHORIZED, FORBIDDEN, NOT_FOUND (the workspace), RATE_LIMITED, UNAVAILABLE."""
        return await self.workspaces.selected(connection, await self._identified(connection, ticket))

    async def signed_in(self, connection: HTTPConnection, key: str | None) -> Principal:
        """Whose key it is, in a new session. None: the key is that of the headers. A cookie makes no other one.

        Raises AppError as `caller`, and INVALID_REQUEST for a token: where and how long it counts its issuer says.
        """
        self._pages.check_sign_in(connection)
        presented = key or _presented_key(connection)
        if not self._enabled:
            caller = await self._identified(connection, None)
        elif presented is None:
            raise AppError(ErrorCode.UNAUTHORIZED, "To sign in, send an API key: as `key` in the body, or as a header.")
        else:
            caller = await self._of_presented(presented, address_of(connection))
        if not caller.operator and not is_key(presented or ""):
            raise AppError(ErrorCode.INVALID_REQUEST, "A session is for an API key. Send a token with each request.")
        ends_at = min(caller.ends_at or math.inf, time.time() + SESSION_SECONDS)
        return replace(await self.workspaces.selected(connection, caller), session=new_id(), ends_at=ends_at)

    def cookie_of(self, workspace: str, key_id: str | None = None, session: str | None = None) -> str:
        """The value of a session's cookie. Without a key's id it is for who has the printed link.

        The link stands for the first key of the settings, and so does what is done by it: a key's budget has no second
        door.
        """
        claims = {"workspace": workspace, "key_id": key_id or self._key_ids[0], "session": session or new_id()}
        return self._sessions.sign(claims, seconds=SESSION_SECONDS)

    async def sign_out(self, connection: HTTPConnection, redis: Redis) -> None:
        """Ends the session of the cookie at once, where there is one. Raises AppError FORBIDDEN; RedisError."""
        claims = self._sessions.verify(connection.cookies.get(self.cookie_name, ""))
        if claims is not None:
            self._pages.check_cookie(connection)
            await self.ring.end_session(redis, claims["session"], claims["expires"] - time.time())

    def new_stream_ticket(self, caller: Principal) -> tuple[str, int]:
        """And for how many seconds it is good: no longer than the caller's credentials."""
        seconds = STREAM_TICKET_SECONDS
        if caller.ends_at is not None:
            seconds = max(0, min(seconds, int(caller.ends_at - time.time())))
        return self._tickets.sign(caller.claims(), seconds=seconds), seconds

    async def check(self, caller: Principal) -> None:
        """That the credentials of somebody who came in before still count. Raises AppError UNAUTHORIZED."""
        if caller.ended:
            raise credentials_ended()
        await self.ring.check_not_revoked(*caller.revocable)

    async def _identified(self, connection: HTTPConnection, ticket: str | None) -> Principal:
        if not self._enabled:
            self._pages.check_open(connection)
            return _operator(LOCAL)
        if key := _presented_key(connection):
            return await self._of_presented(key, address_of(connection))
        if ticket is not None:
            return await self._of_ticket(ticket)
        if cookie := connection.cookies.get(self.cookie_name):
            return await self._of_cookie(connection, cookie)
        raise AppError(
            ErrorCode.UNAUTHORIZED, "This needs an API key: send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`."
        )

    async def _of_presented(self, key: str, address: str) -> Principal:
        try:
            return self._of_settings(key) or await self._of_key_or_token(key, address)
        except AppError as error:
            if error.code is ErrorCode.UNAUTHORIZED:
                await self._failures.count(address)
            raise

    def _of_settings(self, key: str) -> Principal | None:
        found = digest(key)
        # Compares with all of them, whichever fits: the time taken tells nothing.
        if sum(hmac.compare_digest(found, known) for known in self._digests) == 0:
            return None
        return _operator(_key_id(found))

    async def _of_key_or_token(self, key: str, address: str) -> Principal:
        if self._jwt is not None and key.count(".") == TOKEN_DOTS:
            return await self._jwt.principal(key)
        return await self.ring.principal(key, address)

    async def _of_ticket(self, ticket: str) -> Principal:
        claims = self._tickets.verify(ticket)
        if claims is None:
            detail = "The ticket is not valid any more. Get another one from POST /api/stream-tickets."
            raise AppError(ErrorCode.UNAUTHORIZED, detail)
        caller = Principal.of_claims(claims)
        await self.check(caller)
        return caller

    async def _of_cookie(self, connection: HTTPConnection, cookie: str) -> Principal:
        """As the session's key is now."""
        claims = self._sessions.verify(cookie)
        if claims is None:
            raise AppError(ErrorCode.UNAUTHORIZED, "The session has ended. Sign in again, or send an API key.")
        self._pages.check_cookie(connection)
        workspace, key_id = claims["workspace"], claims["key_id"]
        if key_id in self._key_ids:
            caller = _operator(key_id, workspace)
        else:
            caller = await self.ring.of_id(workspace, key_id)
        ends_at = min(caller.ends_at or math.inf, claims["expires"])
        caller = replace(caller, session=claims["session"], ends_at=ends_at)
        await self.check(caller)
        return caller


def credentials_ended() -> AppError:
    return AppError(ErrorCode.UNAUTHORIZED, "These credentials have expired. Come again with new ones.")


def _operator(key_id: str, workspace: str = DEFAULT_WORKSPACE) -> Principal:
    return Principal(workspace, key_id, ALL_SCOPES, workspaces=None)


def _presented_key(connection: HTTPConnection) -> str | None:
    scheme, _, credentials = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    return connection.headers.get("x-api-key")


def _key_id(found: bytes) -> str:
    return found.hex()[:12]
