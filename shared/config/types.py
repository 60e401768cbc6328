"""The kinds of value a setting can be, beyond pydantic's own: addresses, names, limits, each with its rule."""

import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, StringConstraints

from shared.permissions import Rule

MIB = 1024**2
GIB = 1024**3
POSTGRES_DRIVER = "postgresql+asyncpg"
SQLITE_DRIVER = "sqlite+aiosqlite"
_DRIVERS = {
    "postgres": POSTGRES_DRIVER,
    "postgresql": POSTGRES_DRIVER,
    POSTGRES_DRIVER: POSTGRES_DRIVER,
    "sqlite": SQLITE_DRIVER,
    SQLITE_DRIVER: SQLITE_DRIVER,
}
_OLLAMA_PORTS = {"http": 80, "https": 443, "": 11434}  # as Ollama itself reads OLLAMA_HOST

DEFAULT_TOOLS = (
    "bash", "bash_output", "bash_kill", "read_file", "edit_file", "write_files", "multi_edit", "ls", "grep", "glob",
    "todo_read", "todo_write", "job_plan", "suggest_next_steps", "use_template", "expose_port",
)  # fmt: skip
BUILT_IN_TOOLS = (*DEFAULT_TOOLS, "publish_event", "web_fetch", "web_search", "delegate")


def _split(url: str, schemes: tuple[str, ...]) -> SplitResult:
    allowed = " or ".join(f"{scheme}://" for scheme in schemes)
    try:
        parts = urlsplit(url)
        port_is_wrong = parts.port == 0
    except ValueError as error:
        # urlsplit's own words can quote a part of a password
        raise ValueError(f"should be an URL that begins with {allowed}, with a valid host and port") from error
    if parts.scheme not in schemes or not parts.hostname or port_is_wrong:
        raise ValueError(f"should be an URL that begins with {allowed} and names a host")
    return parts


def _http_url(url: str) -> str:
    _split(url, ("http", "https"))
    return url.rstrip("/")


def _redis_url(url: str) -> str:
    _split(url, ("redis", "rediss"))
    return url


def _origin(origin: str) -> str:
    if origin == "*":
        return origin
    parts = _split(origin, ("http", "https"))
    if origin != f"{parts.scheme}://{parts.netloc}":
        raise ValueError('should be an origin as browsers send it, without a path or a final slash, or "*"')
    return origin


def _sandbox_origin(origin: str) -> str:
    if origin.count("*") != 1 or "://*." not in origin or _origin(origin.replace("*", "x")) == "*":
        raise ValueError("should be an origin with a star for its first name, such as https://*.sandboxes.example.com")
    return origin


def _ollama_host(host: str) -> str:
    scheme, _, address = host.rpartition("://")
    parts = _split(f"{scheme or 'http'}://{address}", ("http", "https"))
    port = parts.port or _OLLAMA_PORTS[scheme.lower()]
    name = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{name}:{port}"


def _database_url(url: SecretStr) -> SecretStr:
    scheme, separator, rest = url.get_secret_value().partition("://")
    driver = _DRIVERS.get(scheme)
    if driver is None or not separator:
        raise ValueError(f"should begin with {POSTGRES_DRIVER}:// or {SQLITE_DRIVER}:// (no other driver is known)")
    if driver == SQLITE_DRIVER and rest.partition("?")[0].strip("/") in ("", ":memory:"):
        raise ValueError("should name a file: a database in memory would be each process's own")
    if driver == POSTGRES_DRIVER:
        _split(f"{driver}://{rest}", (POSTGRES_DRIVER,))
        # libpq's name of the parameter; SQLAlchemy hands it to asyncpg, which knows it as `ssl`.
        rest = re.sub(r"(?<=[?&])sslmode=", "ssl=", rest)
    return SecretStr(f"{driver}://{rest}")


LEAST_KEY_CHARS = 16


def _api_key(key: SecretStr) -> SecretStr:
    if len(key.get_secret_value()) < LEAST_KEY_CHARS:
        raise ValueError(f"should have at least {LEAST_KEY_CHARS} characters, so that nobody guesses it")
    return key


def _tool_pattern(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_*?][\w*?-]{0,63}", name):
        raise ValueError('should be the name of a tool, or a pattern such as "mcp__github__*"')
    return name


def _permission(rule: str) -> str:
    Rule.parse(rule)
    return rule


def _private_host(entry: str) -> str:
    parts = _split(f"http://{entry}", ("http",))
    if entry != parts.netloc or parts.username is not None or " " in entry:
        raise ValueError("should be host or host:port")
    return entry


def _host_pattern(pattern: str) -> str:
    pattern = pattern.lower().rstrip(".")
    if not re.fullmatch(r"(\*\.)?[a-z0-9]([a-z0-9_.-]*[a-z0-9])?", pattern):
        raise ValueError(
            "should be a host such as packages.example.com, or *.packages.example.com for all names below it"
        )
    return pattern


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


Environment = Annotated[Literal["local", "dev", "prod"], BeforeValidator(_lower)]
LogLevel = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(_upper)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
RedisUrl = Annotated[str, AfterValidator(_redis_url)]
Origin = Annotated[str, AfterValidator(_origin)]
PrivateHost = Annotated[str, AfterValidator(_private_host)]
HostPattern = Annotated[str, AfterValidator(_host_pattern)]
SandboxOrigin = Annotated[str, AfterValidator(_sandbox_origin)]
OllamaHost = Annotated[str, AfterValidator(_ollama_host)]
DatabaseUrl = Annotated[SecretStr, AfterValidator(_database_url)]
ApiKey = Annotated[SecretStr, AfterValidator(_api_key)]
ToolPattern = Annotated[str, AfterValidator(_tool_pattern)]
Permission = Annotated[str, AfterValidator(_permission)]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
LocalPath = Annotated[Path, AfterValidator(Path.expanduser)]
Port = Annotated[int, Field(ge=1, le=65535)]
Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]
Dollars = Annotated[float, Field(gt=0)]
Period = Annotated[Literal["day", "month", "total"], BeforeValidator(_lower)]


class Section(BaseModel):
    # The input stays out of pydantic's messages, because it may be a secret.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)
