"""Rules between settings: each value is fine alone, and together they would hurt."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shared.config.sections import Settings


@dataclass(frozen=True)
class Rule:
    """`fields` as `section.key`; `text` says what must hold, and why or what to do."""

    fields: tuple[str, ...]
    holds: Callable[[Settings], bool]
    text: str


def broken_rules(settings: Settings) -> list[Rule]:
    return [rule for rule in RULES if not rule.holds(settings)]


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _output_fits(settings: Settings) -> bool:
    window, output = settings.llm.context_tokens, settings.llm.max_output_tokens
    return window is None or output is None or output < window


RULES = (
    Rule(
        ("auth.enabled", "api.host", "auth.allow_insecure"),
        lambda s: s.auth.enabled or s.auth.allow_insecure or is_loopback(s.api.host),
        "without keys the gateway may only listen on a loopback address: "
        "leave auth.enabled = true, or set api.host to 127.0.0.1, or auth.allow_insecure to true",
    ),
    Rule(
        ("jwt.secret", "jwt.public_key", "jwt.jwks_url"),
        lambda s: s.jwt.ways <= 1,
        "tokens are checked in one way: set only one of jwt.secret, jwt.public_key and jwt.jwks_url",
    ),
    Rule(
        ("jwt.secret", "jwt.public_key", "jwt.jwks_url", "jwt.issuer", "jwt.audience"),
        lambda s: not s.jwt.enabled or bool(s.jwt.issuer and s.jwt.audience),
        "tokens that were made for others must not count here: set jwt.issuer and jwt.audience",
    ),
    Rule(
        ("api.cors_origins", "api.cors_credentials"),
        lambda s: not ("*" in s.api.cors_origins and s.api.cors_credentials),
        "cookies must not be accepted from every page: name the origins, or set api.cors_credentials to false",
    ),
    Rule(
        ("api.reload", "api.workers"),
        lambda s: not s.api.reload or s.api.workers == 1,
        "reloading works with one gateway process only",
    ),
    Rule(
        ("metrics.worker_port", "metrics.worker_host", "metrics.token"),
        lambda s: s.metrics.worker_port is None or s.metrics.token is not None or is_loopback(s.metrics.worker_host),
        "without a token workers' metrics may only be at a loopback address: set metrics.token",
    ),
    Rule(
        ("api.hsts_max_age", "api.public_url"),
        lambda s: s.api.hsts_max_age is None or (s.api.public_url or "").startswith("https://"),
        "browsers may be told to use https only where it is there: set api.public_url to its https:// address",
    ),
    Rule(
        ("worker.renew_seconds", "worker.lease_seconds"),
        lambda s: s.worker.renew_seconds < s.worker.lease_seconds / 2,
        "renew_seconds should be less than half of lease_seconds, or one late renewal loses the lease",
    ),
    Rule(
        ("worker.watchdog_seconds", "worker.hang_seconds"),
        lambda s: s.worker.watchdog_seconds <= s.worker.hang_seconds,
        "hang_seconds should not be less than watchdog_seconds: a worker gives its lease up before it exits",
    ),
    Rule(
        ("llm.backoff_seconds", "llm.backoff_max_seconds"),
        lambda s: s.llm.backoff_seconds <= s.llm.backoff_max_seconds,
        "backoff_seconds should not be more than backoff_max_seconds",
    ),
    Rule(
        ("llm.max_output_tokens", "llm.context_tokens"),
        _output_fits,
        "max_output_tokens should be less than context_tokens, or no room is left for the conversation",
    ),
    Rule(
        ("payloads.inline_bytes", "payloads.max_bytes"),
        lambda s: s.payloads.inline_bytes <= s.payloads.max_bytes,
        "inline_bytes should not be more than max_bytes",
    ),
    Rule(
        ("payloads.store", "payloads.s3_bucket"),
        lambda s: s.payloads.store != "s3" or s.payloads.s3_bucket is not None,
        "a store in S3 needs its bucket: set payloads.s3_bucket",
    ),
    Rule(
        ("sandbox.network", "sandbox.allowed_hosts"),
        lambda s: s.sandbox.network != "allow" or bool(s.sandbox.allowed_hosts),
        'network = "allow" needs its hosts: set sandbox.allowed_hosts, or sandbox.network to "none"',
    ),
    Rule(
        ("sandbox.network", "sandbox.provider"),
        lambda s: (s.sandbox.network, s.sandbox.provider) != ("allow", "docker"),
        'Docker cannot keep a sandbox to some hosts: set sandbox.network to "none" or "open", or use another provider',
    ),
    Rule(
        ("stream.keep_alive_seconds", "stream.idle_timeout_seconds"),
        lambda s: s.stream.keep_alive_seconds < s.stream.idle_timeout_seconds,
        "keep_alive_seconds should be less than idle_timeout_seconds, or no keep-alive is ever sent",
    ),
)
