"""Who calls, and what that caller may do."""

import time
from dataclasses import dataclass, replace
from typing import Self

from shared.errors import AppError, ErrorCode
from shared.tenant import Tenant
from shared.types import JSON, Scope

DEFAULT_WORKSPACE = "default"
LOCAL = "local"
"""The key's id where nobody is asked for a key."""
ALL_SCOPES = frozenset(Scope)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls, and for which workspace. `key_id` is the same for a key for ever, and tells nothing of it."""

    workspace: str
    key_id: str
    scopes: frozenset[Scope]
    project: str | None = None
    """The only project of the workspace that the caller sees; None: all of it."""
    user: str | None = None
    """For whom, where the credentials say so."""
    workspaces: frozenset[str] | None = frozenset()
    """Those that may be selected beside `workspace`; None: all that there are."""
    session: str | None = None
    """The id of the browser's session that the credentials are of: it can be ended for itself."""
    ends_at: float | None = None
    """When the credentials count no more (Unix time), and what is open with them ends; None: when they are revoked."""

    @property
    def operator(self) -> bool:
        """Who has a key of the settings runs the installation, and has all of its workspaces."""
        return self.workspaces is None

    @property
    def revocable(self) -> frozenset[str]:
        """The ids of what ends the caller's access when it is revoked."""
        return frozenset(each for each in (self.key_id, self.session) if each)

    @property
    def ended(self) -> bool:
        return self.ends_at is not None and self.ends_at <= time.time()

    @property
    def tenant(self) -> Tenant:
        """What every query about rows takes, and whom Idempotency-Keys and sessions belong to."""
        return Tenant(self.workspace, self.project)

    def sees(self, workspace: str | None, project: str | None) -> bool:
        """As `Tenant.sees`."""
        return self.tenant.sees(workspace, project)

    def may_select(self, workspace: str) -> bool:
        return self.workspaces is None or workspace == self.workspace or workspace in self.workspaces

    def in_workspace(self, workspace: str) -> Self:
        """As a caller for another workspace: one of those that may be selected."""
        mine = None if self.workspaces is None else self.workspaces | {self.workspace}
        return replace(self, workspace=workspace, workspaces=mine)

    def check(self, scope: Scope) -> None:
        """Raises AppError FORBIDDEN."""
        if scope not in self.scopes and Scope.ADMIN not in self.scopes:
            held = ", ".join(sorted(self.scopes)) or "none"
            raise AppError(
                ErrorCode.FORBIDDEN, f"This needs the scope `{scope}`, and the credentials have {held}. Use others."
            )

    def check_operator(self) -> None:
        """Raises AppError FORBIDDEN."""
        if not self.operator:
            raise AppError(ErrorCode.FORBIDDEN, "Only a key of the settings (auth.keys, or the key file) may do this.")

    def check_whole_workspace(self) -> None:
        """For what concerns more than one project. Raises AppError FORBIDDEN."""
        if self.project is not None:
            raise AppError(
                ErrorCode.FORBIDDEN,
                f"The credentials are for project {self.project} only, and this concerns the whole workspace.",
            )

    def claims(self) -> JSON:
        """What a ticket says of its caller. It is for the selected workspace alone."""
        return {
            "workspace": self.workspace,
            "key_id": self.key_id,
            "scopes": sorted(self.scopes),
            "project": self.project,
            "user": self.user,
            "session": self.session,
            "ends_at": self.ends_at,
        }

    @classmethod
    def of_claims(cls, claims: JSON) -> Self:
        return cls(
            workspace=claims["workspace"],
            key_id=claims["key_id"],
            scopes=frozenset(scope for scope in Scope if scope in claims["scopes"]),
            project=claims["project"],
            user=claims["user"],
            session=claims.get("session"),
            ends_at=claims["ends_at"],
        )
