"""JSON Web Tokens of the operator's own issuer -> who calls."""

import hashlib
from collections.abc import Mapping
from typing import Any

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from gateway.auth.jwks import KeySet
from gateway.auth.principal import Principal
from shared.config import JwtSettings
from shared.errors import AppError, ErrorCode
from shared.ids import is_row_id
from shared.types import Scope

MAX_CHARS = 8192
MAX_WORKSPACES = 1000
USER_CHARS = 200


class Tokens:
    """Which algorithm counts is ours to say and never the token's, so that a public key is no HMAC secret."""

    def __init__(self, settings: JwtSettings) -> None:
        """Raises AppError INVALID_CONFIG."""
        self._settings = settings
        self._decoder = jwt.PyJWT({"enforce_minimum_key_length": True})
        self._algorithm = "HS256" if settings.secret else "RS256"
        self._key: Any = settings.secret.get_secret_value() if settings.secret else None
        if settings.public_key:
            self._key = _public_key(settings.public_key)
        self._key_set = KeySet(settings.jwks_url, seconds=settings.jwks_seconds) if settings.jwks_url else None

    async def principal(self, token: str) -> Principal:
        """Raises AppError UNAUTHORIZED, FORBIDDEN (it opens no workspace), UNAVAILABLE (the issuer's keys)."""
        if len(token) > MAX_CHARS:
            raise _refused(f"it has more than {MAX_CHARS} characters")
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") != self._algorithm:
                raise _refused(f"it is not signed with {self._algorithm}")
            key = await self._key_of(header.get("kid"))
            claims = self._decoder.decode(
                token,
                key,
                algorithms=[self._algorithm],
                issuer=self._settings.issuer,
                audience=self._settings.audience,
                leeway=self._settings.leeway_seconds,
                options={"require": ["exp", "iss", "aud"]},
            )
        except jwt.PyJWTError as error:
            raise _refused(str(error)) from error
        return self._caller(claims)

    async def _key_of(self, key_id: Any) -> Any:
        if self._key_set is None:
            return self._key
        key = await self._key_set.key(key_id if isinstance(key_id, str) else None)
        if key is None:
            raise _refused("its issuer has no such key")
        return key

    def _caller(self, claims: Mapping[str, Any]) -> Principal:
        settings = self._settings
        workspaces = [each for each in _texts(claims.get(settings.workspace_claim)) if is_row_id(each)]
        if settings.workspace_claim not in claims and settings.workspace:
            workspaces = [settings.workspace]
        if not workspaces:
            detail = f"The token's claim {settings.workspace_claim!r} names no workspace that it is for."
            raise AppError(ErrorCode.FORBIDDEN, detail)
        return Principal(
            workspace=workspaces[0],
            key_id=_subject_id(claims),
            scopes=self._scopes(claims),
            project=self._project(claims),
            user=next((each for each in _texts(claims.get(settings.user_claim)) if len(each) <= USER_CHARS), None),
            workspaces=frozenset(workspaces[:MAX_WORKSPACES]),
            ends_at=int(claims["exp"]) + settings.leeway_seconds,
        )

    def _project(self, claims: Mapping[str, Any]) -> str | None:
        """A claim that is there and says nothing usable must not open the whole workspace."""
        claim = claims.get(self._settings.project_claim)
        if claim is None:
            return None
        if not isinstance(claim, str) or not is_row_id(claim):
            raise AppError(ErrorCode.FORBIDDEN, "The token's claim of its project is not the id of one.")
        return claim

    def _scopes(self, claims: Mapping[str, Any]) -> frozenset[Scope]:
        claim = claims.get(self._settings.scopes_claim)
        if claim is None:
            return frozenset(self._settings.scopes)
        words = claim.split() if isinstance(claim, str) else _texts(claim)
        return frozenset(scope for scope in Scope if f"{self._settings.scope_prefix}{scope}" in words)


def _texts(claim: Any) -> list[str]:
    """A claim that is a text or a list of texts, as a list."""
    several = claim if isinstance(claim, list) else [claim]
    return [each for each in several if isinstance(each, str) and each and "\0" not in each]


def _subject_id(claims: Mapping[str, Any]) -> str:
    """For limits and budgets: the same for a subject, whatever its token."""
    subject = f"{claims['iss']}\n{claims.get('sub')}"
    return f"jwt-{hashlib.sha256(subject.encode()).hexdigest()[:16]}"


def _public_key(pem: str) -> RSAPublicKey:
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise AppError(ErrorCode.INVALID_CONFIG, f"jwt.public_key is no public key in PEM: {error}") from error
    if not isinstance(key, RSAPublicKey):
        raise AppError(ErrorCode.INVALID_CONFIG, "jwt.public_key is no RSA key, as RS256 needs it.")
    return key


def _refused(why: str) -> AppError:
    return AppError(ErrorCode.UNAUTHORIZED, f"The token is not valid here: {why}.")
