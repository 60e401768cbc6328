"""Whose something is."""

from dataclasses import dataclass, replace
from typing import Self


@dataclass(frozen=True, slots=True)
class Tenant:
    """What a caller sees, and what nothing is shared beyond. As text it names keys and logs."""

    workspace: str
    project: str | None = None
    """The only project of the workspace that is seen; None: all of it."""

    def __str__(self) -> str:
        return self.workspace if self.project is None else f"{self.workspace}/{self.project}"

    @property
    def seen_by(self) -> set[Self]:
        """All tenants that see what is of this one: itself, and its workspace as a whole."""
        return {self, replace(self, project=None)}

    def sees(self, workspace: str | None, project: str | None) -> bool:
        """Whether something of this workspace and project exists for it. None: it is in none."""
        return workspace == self.workspace and self.project in (None, project)
