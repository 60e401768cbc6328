"""Names that other backends gave their variables, and the settings they stand for (docs/configuration.md lists them).

They count in the environment and in `.env`. Where a source has both, the setting's own TRUNKLINE__ name wins.
"""

import ipaddress
import re
from collections.abc import Mapping
from urllib.parse import quote

from shared.config.types import POSTGRES_DRIVER

ALIASES = {
    "ENV": "env",
    "API_HOST": "api.host",
    "API_PORT": "api.port",
    "API_RELOAD": "api.reload",
    "API_WORKERS": "api.workers",
    "LOG_LEVEL": "log.level",
    "DEBUG": "log.debug",
    "POSTGRES_DSN": "database.url",
    "DB_POOL_SIZE": "database.pool_size",
    "AUTH_ENABLED": "auth.enabled",
    "RATE_LIMIT_MAX_REQUESTS": "rate_limit.max_requests",
    "OLLAMA_HOST": "llm.ollama_host",
    "TAVILY_API_KEY": "web.tavily_api_key",
    "EXA_API_KEY": "web.exa_api_key",
    "BRAVE_API_KEY": "web.brave_api_key",
    "MGX_MAX_ROUNDS": "agent.max_turns",
    "MGX_CACHE_BACKEND": "agents.response_cache",
    "AGENTS_ENABLED": "agents.enabled",
    "AGENT_MAX_CONCURRENCY": "agents.max_concurrency",
    "AGENT_CONTEXT_HISTORY_LIMIT": "agents.context_history_limit",
    "AGENT_MESSAGE_RETENTION_LIMIT": "agents.message_retention_limit",
    "AGENT_MESSAGE_ACK_WINDOW_SECONDS": "agents.message_ack_window_seconds",
    "AGENT_REGISTRY_MODULES": "agents.registry_modules",
}

# Together they are database.url; the ones that are not set have these values.
DATABASE_PARTS = {
    "DB_HOST": "localhost",
    "DB_PORT": "5432",
    "DB_USER": "postgres",
    "DB_PASSWORD": "postgres",
    "DB_NAME": "mgx_agent",
}

UNUSED_PREFIX = "MONGO_"
UNUSED_REASON = "Redis and the SQL database do MongoDB's work here"


def database_part_rules(parts: Mapping[str, str]) -> dict[str, str]:
    """For each DB_* variable that is wrong, the rule it breaks."""
    wrong = {}
    if not (_is_ipv6(parts.get("DB_HOST", "")) or re.fullmatch(r"[A-Za-z0-9._-]+", parts.get("DB_HOST", "localhost"))):
        wrong["DB_HOST"] = "should be a host's name or address"
    port = parts.get("DB_PORT", "5432")
    if not (re.fullmatch(r"[0-9]{1,5}", port) and 1 <= int(port) <= 65535):
        wrong["DB_PORT"] = "should be a number from 1 to 65535"
    return wrong


def build_database_url(parts: Mapping[str, str]) -> str:
    """The URL that valid DB_* variables describe."""
    full = {**DATABASE_PARTS, **parts}
    user, password, name = (quote(full[key], safe="") for key in ("DB_USER", "DB_PASSWORD", "DB_NAME"))
    host = f"[{full['DB_HOST']}]" if _is_ipv6(full["DB_HOST"]) else full["DB_HOST"]
    return f"{POSTGRES_DRIVER}://{user}:{password}@{host}:{full['DB_PORT']}/{name}"


def _is_ipv6(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False
