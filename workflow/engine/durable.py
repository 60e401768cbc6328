"""Durable functions: a user's own flow, run by the engine that runs agents.

@durable("fulfil_order", version=2)
async def fulfil(step: Step, input):
    await step.do("charge", charge, input=input["order"])
    await step.wait_for_event("packed", key=input["order"], timeout=3 * 24 * 3600)
"""

import importlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from shared.errors import AppError, ErrorCode


@dataclass(frozen=True, slots=True)
class DurableFunction:
    """A run keeps to the version that it began with, while it is there."""

    name: str
    version: int
    flow: Callable[[Any, Any], Awaitable[Any]]

    async def __call__(self, step: Any, input: Any) -> Any:
        return await self.flow(step, input)


def durable(name: str, *, version: int = 1) -> Callable[[Callable[[Any, Any], Awaitable[Any]]], DurableFunction]:
    """Makes `async def flow(step, input)` a durable function, to be found in the modules of `workflow.modules`."""

    def register(flow: Callable[[Any, Any], Awaitable[Any]]) -> DurableFunction:
        return DurableFunction(name, version, flow)

    return register


class Functions:
    """The durable functions of some modules."""

    def __init__(self, functions: Iterable[DurableFunction]) -> None:
        self._versions: dict[str, dict[int, DurableFunction]] = {}
        for function in functions:
            known = self._versions.setdefault(function.name, {}).setdefault(function.version, function)
            if known is not function:
                raise AppError(
                    ErrorCode.INVALID_CONFIG,
                    f"There are two durable functions {function.name!r} of version {function.version}. "
                    "Give one another name or version.",
                )

    @classmethod
    def of_modules(cls, modules: Iterable[str], own: Iterable[DurableFunction] = ()) -> "Functions":
        """Imports them; `own` are ours. Raises AppError INVALID_CONFIG for one that cannot be imported."""
        found = [*own]
        for name in modules:
            try:
                module = importlib.import_module(name)
            except ImportError as error:
                raise AppError(
                    ErrorCode.INVALID_CONFIG, f"workflow.modules names {name!r}, which cannot be imported: {error}."
                ) from error
            found += [value for value in vars(module).values() if isinstance(value, DurableFunction)]
        return cls(found)

    @property
    def names(self) -> list[str]:
        return sorted(self._versions)

    @property
    def versions(self) -> dict[str, list[int]]:
        """Of each, by name."""
        return {name: sorted(self._versions[name]) for name in self.names}

    @property
    def had(self) -> list[str]:
        """Each as `name`, for any version, and as `name@version`."""
        return [*self._versions, *(f"{name}@{version}" for name in self._versions for version in self._versions[name])]

    def get(self, name: str | None, version: int | None) -> DurableFunction:
        """The version asked for, or else the newest. Raises AppError NOT_FOUND."""
        versions = self._versions.get(name or "")
        if not versions:
            known = ", ".join(self.names) or "none; name their modules in workflow.modules"
            raise AppError(ErrorCode.NOT_FOUND, f"There is no durable function {name!r}. There are: {known}.")
        return versions.get(version or 0) or versions[max(versions)]
