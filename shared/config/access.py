"""The settings of who comes in by tokens of another issuer, and of what is written down of all who do."""

from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from shared.config.types import Count, HttpUrl, Seconds, Section, Text
from shared.types import Scope


def _hmac_secret(secret: SecretStr) -> SecretStr:
    if len(secret.get_secret_value().encode()) < 32:
        raise ValueError("should have at least 32 bytes, as HS256 asks for")
    return secret


class JwtSettings(Section):
    """JSON Web Tokens of your own issuer, beside API keys; see docs/auth.md. One of the first three switches it on."""

    secret: Annotated[SecretStr, AfterValidator(_hmac_secret)] | None = Field(
        default=None,
        description="Secret that tokens are signed with (HS256), of at least 32 bytes.",
        examples=["a-secret-that-only-the-issuer-and-we-have"],
    )
    public_key: Text | None = Field(
        default=None,
        description="Public key in PEM that tokens are checked with (RS256).",
        examples=["-----BEGIN PUBLIC KEY-----\n...\n-----END PUBLIC KEY-----"],
    )
    jwks_url: HttpUrl | None = Field(
        default=None,
        description="Address of the issuer's JSON Web Key Set (RS256). It is the operator's: any host may be named.",
        examples=["https://login.example.com/.well-known/jwks.json"],
    )
    issuer: Text | None = Field(
        default=None, description="What `iss` must be. Needed.", examples=["https://login.example.com/"]
    )
    audience: Text | None = Field(default=None, description="What `aud` must have. Needed.", examples=["trunkline"])
    leeway_seconds: Annotated[float, Field(ge=0, le=300)] = Field(
        default=30, description="How far the issuer's clock may be from ours."
    )
    jwks_seconds: Seconds = Field(
        default=300, description="How long the key set counts: a key taken from it opens nothing after that."
    )
    workspace_claim: Text = Field(
        default="workspace",
        description="Claim with the workspace's id, or a list of ids: the first where none is selected.",
    )
    workspace: Text | None = Field(
        default=None,
        description="Workspace of tokens without that claim. Unset: they are refused.",
        examples=["default"],
    )
    project_claim: Text = Field(
        default="project", description="Claim with the id of the only project that the token is for."
    )
    scopes_claim: Text = Field(
        default="scope",
        description="Claim with the scopes, as a list or with spaces between. Others in it are ignored.",
    )
    scope_prefix: str = Field(default="", description="What our scopes begin with in that claim, such as trunkline:.")
    scopes: list[Scope] = Field(default=[Scope.READ, Scope.RUN], description="Scopes of tokens without that claim.")
    user_claim: Text = Field(
        default="sub", description="Claim that becomes `user_uuid` of runs where the request gives none."
    )

    @property
    def enabled(self) -> bool:
        return self.ways > 0

    @property
    def ways(self) -> int:
        """How many ways to check a token are set."""
        return sum(way is not None for way in (self.secret, self.public_key, self.jwks_url))


class AuditSettings(Section):
    """The audit log: what was changed, by whom, and who was refused."""

    enabled: bool = Field(default=True, description="Whether it is written.")
    max_waiting: Count = Field(
        default=10_000, description="Entries that a gateway holds while SQL is away; what is beyond is counted only."
    )
    unknown_per_minute: Count = Field(
        default=100,
        description="Entries that a gateway writes in a minute about requests without valid credentials, ten of them "
        "of one address. One more says how many were left out.",
    )
    retention_days: Count = Field(default=365, description="How long entries are kept.")
