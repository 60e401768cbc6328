"""The variables that other backends named, each against the setting that it stands for."""

import logging
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from shared.config import Settings, load_settings
from shared.config.aliases import ALIASES, DATABASE_PARTS, build_database_url
from shared.config.sources import variable_name
from tests.shared.config.test_sources import write

# variable -> what it is given, and what the setting then is
EXAMPLES: dict[str, tuple[str, object]] = {
    "ENV": ("prod", "prod"),
    "API_HOST": ("0.0.0.0", "0.0.0.0"),
    "API_PORT": ("8001", 8001),
    "API_RELOAD": ("true", True),
    "API_WORKERS": ("4", 4),
    "LOG_LEVEL": ("WARNING", "WARNING"),
    "DEBUG": ("true", True),
    "POSTGRES_DSN": ("postgresql://u:p@h:1/d", SecretStr("postgresql+asyncpg://u:p@h:1/d")),
    "DB_POOL_SIZE": ("9", 9),
    "AUTH_ENABLED": ("false", False),
    "RATE_LIMIT_MAX_REQUESTS": ("7", 7),
    "OLLAMA_HOST": ("gpu:11434", "http://gpu:11434"),
    **{name: ("key-1", SecretStr("key-1")) for name in ("TAVILY_API_KEY", "EXA_API_KEY", "BRAVE_API_KEY")},
    "MGX_MAX_ROUNDS": ("5", 5),
    "MGX_CACHE_BACKEND": ("memory", "memory"),
    "AGENTS_ENABLED": ("false", False),
    "AGENT_MAX_CONCURRENCY": ("3", 3),
    "AGENT_CONTEXT_HISTORY_LIMIT": ("4", 4),
    "AGENT_MESSAGE_RETENTION_LIMIT": ("5", 5),
    "AGENT_MESSAGE_ACK_WINDOW_SECONDS": ("6", 6),
    "AGENT_REGISTRY_MODULES": ("myapp.agents,other", ["myapp.agents", "other"]),
}
# another valid text for the setting, given under its own name
OWN = {
    **{name: "2" for name, (_, value) in EXAMPLES.items() if isinstance(value, int)},
    **{name: "off" if value else "on" for name, (_, value) in EXAMPLES.items() if isinstance(value, bool)},
    **{"ENV": "dev", "API_HOST": "::1", "LOG_LEVEL": "ERROR", "POSTGRES_DSN": "sqlite:///x.db", "OLLAMA_HOST": "other"},
    **{"MGX_CACHE_BACKEND": "redis", "AGENT_REGISTRY_MODULES": "mine"},
    **{"TAVILY_API_KEY": "key-2", "EXA_API_KEY": "key-2", "BRAVE_API_KEY": "key-2"},
}


def setting(settings: Settings, path: str) -> object:
    value: object = settings
    for name in path.split("."):
        assert isinstance(value, BaseModel)
        value = getattr(value, name)
    return value


def database_url(environ: dict[str, str], folder: Path) -> str:
    url = load_settings(environ, folder).database.url
    assert url is not None
    return url.get_secret_value()


def test_every_alias_has_an_example() -> None:
    assert EXAMPLES.keys() == OWN.keys() == ALIASES.keys()


@pytest.mark.parametrize("where", ["environment", ".env"])
@pytest.mark.parametrize("name", ALIASES)
def test_an_alias_sets_its_setting(tmp_path: Path, name: str, where: str) -> None:
    text, value = EXAMPLES[name]
    if where == ".env":
        write(tmp_path, ".env", f"{name}={text}\n")
    settings = load_settings({name: text} if where == "environment" else {}, tmp_path)
    assert setting(settings, ALIASES[name]) == value != setting(Settings(), ALIASES[name])


@pytest.mark.parametrize("name", ALIASES)
def test_a_setting_s_own_name_wins_over_its_alias_in_the_same_source(tmp_path: Path, name: str) -> None:
    own = {variable_name(ALIASES[name]): OWN[name]}
    alone = load_settings(own, tmp_path)
    both = load_settings({name: EXAMPLES[name][0], **own}, tmp_path)
    assert both == alone
    assert setting(both, ALIASES[name]) != EXAMPLES[name][1]


@pytest.mark.parametrize("name", ALIASES)
def test_an_alias_in_the_environment_wins_over_the_own_name_in_env_file(tmp_path: Path, name: str) -> None:
    write(tmp_path, ".env", f"{variable_name(ALIASES[name])}={OWN[name]}\n")
    assert setting(load_settings({name: EXAMPLES[name][0]}, tmp_path), ALIASES[name]) == EXAMPLES[name][1]


def test_database_parts_make_one_url_with_the_password_quoted(tmp_path: Path) -> None:
    environ = {"DB_HOST": "db", "DB_PORT": "5433", "DB_USER": "a@b", "DB_PASSWORD": "p@:/ %?#", "DB_NAME": "main"}
    assert database_url(environ, tmp_path) == "postgresql+asyncpg://a%40b:p%40%3A%2F%20%25%3F%23@db:5433/main"


def test_missing_database_parts_have_the_values_of_the_design_they_come_from(tmp_path: Path) -> None:
    assert database_url({"DB_HOST": "db"}, tmp_path) == "postgresql+asyncpg://postgres:postgres@db:5432/mgx_agent"
    assert build_database_url({"DB_HOST": "fd00::1"}).startswith(
        "postgresql+asyncpg://postgres:postgres@[fd00::1]:5432/"
    )


@given(st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip))
def test_any_password_survives_in_the_url(password: str) -> None:
    url = urlsplit(build_database_url({"DB_PASSWORD": password}))
    assert unquote(url.password or "") == password
    assert (url.hostname, url.port, url.path) == ("localhost", 5432, "/mgx_agent")


def test_database_parts_of_the_environment_are_completed_by_env_file(tmp_path: Path) -> None:
    write(tmp_path, ".env", "DB_PASSWORD=secret\nDB_HOST=file\nPOSTGRES_DSN=postgresql://file\n")
    assert database_url({"DB_HOST": "db"}, tmp_path) == "postgresql+asyncpg://postgres:secret@db:5432/mgx_agent"


def test_a_whole_dsn_wins_over_database_parts_in_the_same_source(tmp_path: Path) -> None:
    environ = dict.fromkeys(DATABASE_PARTS, "5432") | {"POSTGRES_DSN": "postgresql://dsn/d"}
    assert database_url(environ, tmp_path) == "postgresql+asyncpg://dsn/d"


@pytest.mark.parametrize(
    ("dsn", "url"),
    [
        ("postgres://u:p@h/d", "postgresql+asyncpg://u:p@h/d"),
        ("postgresql://u:p@h/d?sslmode=require", "postgresql+asyncpg://u:p@h/d?ssl=require"),
        ("postgresql://h/d?a=b&sslmode=require", "postgresql+asyncpg://h/d?a=b&ssl=require"),
        ("postgresql+asyncpg://u:p@h:1/d", "postgresql+asyncpg://u:p@h:1/d"),
        ("sqlite:///file.db", "sqlite+aiosqlite:///file.db"),
    ],
)
def test_a_dsn_is_brought_to_the_driver_in_use(tmp_path: Path, dsn: str, url: str) -> None:
    assert database_url({"POSTGRES_DSN": dsn}, tmp_path) == url
    assert database_url({"TRUNKLINE__DATABASE__URL": dsn}, tmp_path) == url


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://0.0.0.0:11434"),
        ("gpu:1234", "http://gpu:1234"),
        ("http://gpu", "http://gpu:80"),
        ("https://gpu/", "https://gpu:443"),
        ("[::1]", "http://[::1]:11434"),
    ],
)
def test_ollama_s_own_forms_of_its_address_are_understood(tmp_path: Path, host: str, url: str) -> None:
    assert load_settings({"OLLAMA_HOST": host}, tmp_path).llm.ollama_host == url


def test_mongo_variables_warn_and_change_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, ".env", "MONGO_DB_NAME=agents\n")
    with caplog.at_level(logging.WARNING):
        assert load_settings({"MONGO_URI": "mongodb://u:p@h"}, tmp_path) == Settings()
    (message,) = caplog.messages
    assert message.startswith("MONGO_DB_NAME, MONGO_URI: not used")
    assert "mongodb://" not in message
