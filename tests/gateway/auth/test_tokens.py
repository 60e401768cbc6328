"""JSON Web Tokens: which count, and what they say of their caller."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from gateway.auth import jwks
from gateway.auth.tokens import Tokens
from shared.config import JwtSettings
from shared.errors import AppError, ErrorCode
from shared.types import Scope
from tests.support.ports import free_port

SECRET = "a-secret-of-at-least-forty-eight-bytes, and some more"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def pem(key: Any) -> str:
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return str(public.decode())


def settings(**fields: Any) -> JwtSettings:
    return JwtSettings(issuer="https://login.example/", audience="trunkline", **fields)


HS256 = settings(secret=SECRET)
RS256 = settings(public_key=pem(KEY))


def claims(**more: Any) -> dict[str, Any]:
    known = {"iss": "https://login.example/", "aud": "trunkline", "exp": time.time() + 60, "sub": "ann"}
    return {**known, "workspace": "w1", **more}


def token(key: Any = SECRET, algorithm: str = "HS256", headers: Any = None, **more: Any) -> str:
    given = {name: value for name, value in claims(**more).items() if value is not None}
    return jwt.encode(given, key, algorithm, headers=headers)


async def refused(tokens: Tokens, text: str) -> ErrorCode:
    with pytest.raises(AppError) as error:
        await tokens.principal(text)
    return error.value.code


@pytest.mark.parametrize(("found", "key", "algorithm"), [(HS256, SECRET, "HS256"), (RS256, KEY, "RS256")])
async def test_a_token_says_who_calls(found: JwtSettings, key: Any, algorithm: str) -> None:
    text = token(key, algorithm, workspace=["w1", "w2"], scope="openid read admin", project="p")
    caller = await Tokens(found).principal(text)
    assert (caller.workspace, caller.project, caller.user) == ("w1", "p", "ann")
    assert caller.scopes == {Scope.READ, Scope.ADMIN}
    assert caller.may_select("w2")
    assert not caller.may_select("w3")
    assert not caller.operator


async def test_who_calls_is_the_same_whatever_the_token() -> None:
    tokens = Tokens(HS256)
    first, again = await tokens.principal(token()), await tokens.principal(token(exp=time.time() + 99))
    other = await tokens.principal(token(sub="bob"))
    assert first.key_id == again.key_id != other.key_id


async def test_claims_are_read_under_the_names_of_the_settings() -> None:
    own = settings(
        secret=SECRET,
        workspace_claim="org",
        scopes_claim="roles",
        scope_prefix="tl:",
        user_claim="email",
        workspace="w0",
    )
    found = await Tokens(own).principal(token(org="w9", roles=["tl:run", "read"], email="a@b.example"))
    assert (found.workspace, found.scopes, found.user) == ("w9", frozenset({Scope.RUN}), "a@b.example")
    assert (await Tokens(own).principal(token())).workspace == "w0"
    assert (await Tokens(HS256).principal(token())).scopes == {Scope.READ, Scope.RUN}


@pytest.mark.parametrize(
    "more",
    [
        {"iss": "https://login.example"},
        {"iss": None},
        {"aud": "another"},
        {"aud": ["another"]},
        {"aud": None},
        {"exp": -60},
        {"exp": None},
        {"exp": "soon"},
        {"nbf": 60},
        {"iat": 60},
    ],
)
async def test_what_was_not_made_for_us_or_not_for_now_is_refused(more: dict[str, Any]) -> None:
    """Times are seconds from now."""
    told: dict[str, Any] = {
        name: time.time() + value if isinstance(value, int) else value for name, value in more.items()
    }
    assert await refused(Tokens(HS256), token(**told)) is ErrorCode.UNAUTHORIZED


async def test_clocks_may_differ_a_little() -> None:
    tokens = Tokens(HS256)
    for name, seconds in (("exp", -20), ("nbf", 20), ("iat", 20)):
        given: dict[str, Any] = {name: time.time() + seconds}
        assert await tokens.principal(token(**given))
    assert await refused(Tokens(settings(secret=SECRET, leeway_seconds=0)), token(exp=time.time() - 5))


@pytest.mark.parametrize(
    "more", [{"workspace": None}, {"workspace": []}, {"workspace": 7}, {"workspace": "a\0b"}, {"project": ["p"]},
             {"project": ""}]
)  # fmt: skip
async def test_a_token_that_opens_nothing_is_forbidden(more: dict[str, Any]) -> None:
    assert await refused(Tokens(HS256), token(**more)) is ErrorCode.FORBIDDEN


def unsigned(header: dict[str, Any]) -> str:
    parts = (base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in (header, claims()))
    return ".".join([*parts, ""])


async def test_the_token_does_not_choose_its_algorithm() -> None:
    header, payload, _ = token(KEY, "RS256").split(".")
    for text in (
        unsigned({"alg": "none", "typ": "JWT"}),
        unsigned({"alg": "None"}),
        unsigned({"alg": ["RS256"]}),
        unsigned({}),
        token(SECRET, "HS384"),
        token(OTHER_KEY, "RS256"),
        token(KEY, "RS512"),
        token(ec.generate_private_key(ec.SECP256R1()), "ES256"),
        f"{header}.{payload}.",
        f"{header}.{payload}.AAAA",
    ):
        assert await refused(Tokens(RS256), text) is ErrorCode.UNAUTHORIZED, text
    # The public key as an HMAC secret: what libraries fell for that let the token choose.
    head = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').decode().rstrip("=")
    mac = hmac.digest(pem(KEY).encode(), f"{head}.{payload}".encode(), hashlib.sha256)
    text = f"{head}.{payload}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"
    assert await refused(Tokens(RS256), text) is ErrorCode.UNAUTHORIZED


@pytest.mark.parametrize("text", ["..", "a.b.c", "é.é.é", "A" * 9000, f"{'e30.' * 2}x"])
async def test_what_is_no_token_is_refused(text: str) -> None:
    assert await refused(Tokens(HS256), text) is ErrorCode.UNAUTHORIZED


@pytest.mark.parametrize("wrong", ["nonsense", pem(ec.generate_private_key(ec.SECP256R1()))])
def test_a_key_that_is_none_is_refused_at_the_start(wrong: str) -> None:
    with pytest.raises(AppError) as error:
        Tokens(settings(public_key=wrong))
    assert error.value.code is ErrorCode.INVALID_CONFIG


class Issuer:
    """Serves its key set, and counts who reads it."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {"one": KEY}
        self.body: str | None = None
        self.reads = 0
        self.status = 200
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/keys"

    async def answer(self, _: web.Request) -> web.Response:
        self.reads += 1
        found = [{**self.jwk(key), "kid": name, "use": "sig"} for name, key in self.keys.items()]
        return web.Response(text=self.body or json.dumps({"keys": found}), status=self.status)

    def jwk(self, key: Any) -> dict[str, Any]:
        return dict(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True))

    def tokens(self, **fields: Any) -> Tokens:
        return Tokens(settings(jwks_url=self.url, **fields))


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    issuer = Issuer()
    app = web.Application()
    app.router.add_get("/keys", issuer.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", issuer.port).start()
    yield issuer
    await runner.cleanup()


def signed(key: Any, name: str | None) -> str:
    return token(key, "RS256", headers={"kid": name} if name else None)


async def test_a_key_set_is_read_once_for_many_tokens(issuer: Issuer) -> None:
    tokens = issuer.tokens()
    found = await asyncio.gather(*(tokens.principal(signed(KEY, "one")) for _ in range(20)))
    assert {caller.workspace for caller in found} == {"w1"}
    assert (await tokens.principal(signed(KEY, None))).workspace == "w1"
    assert issuer.reads == 1


async def test_a_rotated_key_is_found_and_the_old_one_counts_no_more(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "PAUSE_SECONDS", 0.0)
    tokens = issuer.tokens()
    await tokens.principal(signed(KEY, "one"))
    issuer.keys = {"two": OTHER_KEY}
    assert await tokens.principal(signed(OTHER_KEY, "two"))
    assert await refused(tokens, signed(KEY, "one")) is ErrorCode.UNAUTHORIZED
    assert await refused(tokens, signed(KEY, "two")) is ErrorCode.UNAUTHORIZED


async def test_unknown_keys_make_nobody_ask_the_issuer_often(issuer: Issuer) -> None:
    tokens = issuer.tokens()
    await tokens.principal(signed(KEY, "one"))
    for number in range(20):
        assert await refused(tokens, signed(OTHER_KEY, f"unknown {number}")) is ErrorCode.UNAUTHORIZED
    assert issuer.reads == 1


async def test_while_the_issuer_is_away_the_last_keys_count(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "PAUSE_SECONDS", 0.0)
    tokens = issuer.tokens(jwks_seconds=1e-6)
    await tokens.principal(signed(KEY, "one"))
    for issuer.status, issuer.body in ((500, None), (200, "<html>"), (200, "[]"), (200, '{"keys": "x" * 300000}')):
        assert await tokens.principal(signed(KEY, "one"))
    issuer.status, issuer.body = 200, json.dumps({"keys": [{"kty": "EC"}, 7, {"kty": "RSA", "kid": "x", "use": "enc"}]})
    assert await refused(tokens, signed(KEY, "one")) is ErrorCode.UNAUTHORIZED


async def test_keys_that_are_none_keep_no_others_from_being_read(issuer: Issuer) -> None:
    good = {**issuer.jwk(KEY), "kid": "one"}
    bad = [{**good, "kid": ["one"]}, {**good, "kid": 1, "n": "?"}, {"kty": "RSA", "kid": "two"}, {**good, "n": 7}]
    issuer.body = json.dumps({"keys": [*bad, good]})
    assert (await issuer.tokens().principal(signed(KEY, "one"))).workspace == "w1"


async def test_without_any_keys_nobody_can_say_whose_token_it_is(issuer: Issuer) -> None:
    issuer.status = 503
    assert await refused(issuer.tokens(), signed(KEY, "one")) is ErrorCode.UNAVAILABLE


async def test_a_redirect_is_not_followed(issuer: Issuer) -> None:
    issuer.status = 302
    assert await refused(issuer.tokens(), signed(KEY, "one")) is ErrorCode.UNAVAILABLE
