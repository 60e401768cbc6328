"""Patterns of hosts: a name, or `*.` and a name, for all names below it."""

from collections.abc import Iterable, Sequence


def is_among(host: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns stands for the host, or for all that a pattern instead of it stands for."""
    return any(host == each or (each.startswith("*.") and host.endswith(each[1:])) for each in patterns)


def beyond(asked: Iterable[str], allowed: Sequence[str]) -> list[str]:
    """Of the patterns asked for, those that stand for more than the allowed ones do."""
    return [host for host in asked if not is_among(host, allowed)]


def common(one: Sequence[str], other: Sequence[str]) -> list[str]:
    """Patterns of what both stand for."""
    both = [*(host for host in one if is_among(host, other)), *(host for host in other if is_among(host, one))]
    return list(dict.fromkeys(both))
