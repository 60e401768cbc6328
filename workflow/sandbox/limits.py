"""What a sandbox may have less of than the settings give."""

from dataclasses import dataclass
from typing import Annotated, Protocol, runtime_checkable

from pydantic import Field

from shared.config.types import MIB


@dataclass(frozen=True, slots=True)
class Limits:
    """What a run's agent has less of than others. None: as they."""

    memory_bytes: Annotated[int, Field(ge=64 * MIB)] | None = None
    processes: Annotated[int, Field(ge=16)] | None = None
    disk_bytes: Annotated[int, Field(ge=MIB)] | None = None


NO_LIMITS = Limits()


@runtime_checkable
class Limitable(Protocol):
    """A sandbox of which a run can have less."""

    def limit(self, limits: Limits) -> None:
        """From the next command on; while others run in it, memory and processes are those that it was started with."""
