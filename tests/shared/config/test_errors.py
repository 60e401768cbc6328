"""What somebody reads whose configuration is wrong."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.config import Settings, WorkerSettings, load_settings
from shared.errors import AppError
from tests.shared.config.test_sources import write

SECRET = "sk-or-another-secret-1234567890"


def problems(folder: Path, **environ: str) -> list[str]:
    with pytest.raises(AppError) as caught:
        load_settings(environ, folder)
    title, *lines = caught.value.detail.splitlines()
    assert title == "The configuration is wrong:"
    assert len(caught.value.errors or []) == len(lines)
    return [line.strip() for line in lines]


def only_problem(folder: Path, **environ: str) -> str:
    (problem,) = problems(folder, **environ)
    return problem


def test_a_wrong_variable_is_told_with_name_value_and_rule(tmp_path: Path) -> None:
    expected = 'API_PORT = "70000" (environment): should be less than or equal to 65535'
    assert only_problem(tmp_path, API_PORT="70000") == expected


def test_a_wrong_line_of_env_file_is_told_with_its_file(tmp_path: Path) -> None:
    path = write(tmp_path, ".env", "TRUNKLINE__API__PORT=0\n")
    expected = f'TRUNKLINE__API__PORT = "0" ({path}): should be greater than or equal to 1'
    assert only_problem(tmp_path) == expected


def test_a_wrong_key_of_the_config_file_is_told_as_it_stands_there(tmp_path: Path) -> None:
    path = write(tmp_path, "config.toml", '[log]\nformat = "xml"\n')
    assert only_problem(tmp_path) == f"[log] format = \"xml\" ({path}): should be 'auto', 'color' or 'json'"


def test_errors_are_also_data(tmp_path: Path) -> None:
    with pytest.raises(AppError) as caught:
        load_settings({"API_PORT": "x", "TRUNKLINE__NOPE": "1"}, tmp_path)
    assert caught.value.errors == [
        {"place": "TRUNKLINE__NOPE (environment)", "detail": "is not a setting"},
        {
            "place": "API_PORT (environment)",
            "detail": "should be a valid integer, unable to parse string as an integer",
            "value": '"x"',
        },
    ]


def test_all_wrong_settings_of_all_sources_are_told_at_once(tmp_path: Path) -> None:
    write(tmp_path, ".env", "API_WORKERS=none\nDB_PORT=0\n")
    write(tmp_path, "config.toml", 'port = 1\n[api]\nprot = 1\nmax_body_bytes = "big"\n[nowhere]\nx = 1\n')
    environ = {"ENV": "test", "TRUNKLINE__NO__SUCH": "1", "TRUNKLINE__WORKER__RENEW_SECONDS": "7", "DB_HOST": "a/b"}
    names = ["API_WORKERS", "DB_PORT", "port", "[api] prot", "[api] max_body_bytes", "[nowhere] x"]
    told = problems(tmp_path, **environ)
    for name in (*names, *environ):
        assert any(re.match(rf"{re.escape(name)}\b", line) for line in told), (name, told)


def test_only_the_value_that_counts_must_be_right(tmp_path: Path) -> None:
    write(tmp_path, "config.toml", "[api]\nport = 0\n")
    assert load_settings({"API_PORT": "1"}, tmp_path).api.port == 1


@pytest.mark.parametrize(
    ("name", "guess"),
    [
        ("TRUNKLINE__API__PROT", "TRUNKLINE__API__PORT"),
        ("TRUNKLINE__LLM__APIKEY", "TRUNKLINE__LLM__API_KEY"),
        ("TRUNKLINE__PORT", "TRUNKLINE__API__PORT"),
        ("TRUNKLINE_API_PORT", "TRUNKLINE__API__PORT"),
        ("TRUNKLINE__API_PORT", "TRUNKLINE__API__PORT"),
        ("TRUNKLINE_DATA", "TRUNKLINE__DATA"),
        ("Trunkline__Api__Port", "TRUNKLINE__API__PORT"),
    ],
)
def test_an_unknown_variable_is_told_with_the_likely_one(tmp_path: Path, name: str, guess: str) -> None:
    expected = f"{name} (environment): is not a setting; did you mean {guess}?"
    assert only_problem(tmp_path, **{name: SECRET}) == expected


@pytest.mark.parametrize(
    ("text", "name", "guess"),
    [
        ("[api]\nprot = 1", "[api] prot", "[api] port"),
        ("[api]\nlease_seconds = 1", "[api] lease_seconds", "[worker] lease_seconds"),
        ("max_turns = 1", "max_turns", "[agent] max_turns"),
        ("[workers]\n", "workers", "[worker]"),
        ("date = 'x'", "date", "data"),
        ("[api.port]\nx = 1", None, None),
    ],
)
def test_an_unknown_key_is_told_with_the_likely_one(
    tmp_path: Path, text: str, name: str | None, guess: str | None
) -> None:
    path = write(tmp_path, "config.toml", text)
    problem = only_problem(tmp_path)
    if name is not None:
        assert problem == f"{name} ({path}): is not a setting; did you mean {guess}?"


def test_nothing_is_guessed_where_nothing_is_near(tmp_path: Path) -> None:
    assert only_problem(tmp_path, TRUNKLINE__ZZZZZZ="1").endswith("is not a setting")


def test_a_section_must_be_a_table(tmp_path: Path) -> None:
    path = write(tmp_path, "config.toml", "api = 5\n")
    assert only_problem(tmp_path) == f"api ({path}): should be a table: [api]"


def test_broken_toml_is_told_with_file_and_line(tmp_path: Path) -> None:
    path = write(tmp_path, "config.toml", "[api]\nport = \n")
    assert only_problem(tmp_path).startswith(f"{path} (file): is not valid TOML: Invalid value (at line 2")


def test_a_broken_line_of_env_file_is_told_with_its_number_and_not_its_text(tmp_path: Path) -> None:
    path = write(tmp_path, ".env", f"API_PORT=1\n{SECRET}\nA='open\n")
    told = problems(tmp_path)
    assert told == [f"line {line} ({path}): should be NAME=VALUE" for line in (2, 3)]


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda path: None, "does not exist"),
        (Path.mkdir, "cannot be read: Is a directory"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "should be UTF-8 text"),
    ],
)
def test_a_named_config_file_must_be_readable(tmp_path: Path, make: Callable[[Path], object], rule: str) -> None:
    make(tmp_path / "my.toml")
    assert only_problem(tmp_path, TRUNKLINE_CONFIG="my.toml") == f"{tmp_path / 'my.toml'} (file): {rule}"


@pytest.mark.parametrize(
    ("environ", "rule"),
    [
        ({"API_HOST": " "}, None),
        ({"TRUNKLINE__API__PUBLIC_URL": "example.com"}, "begins with http:// or https:// and names a host"),
        ({"TRUNKLINE__API__CORS_ORIGINS": "https://a.test,https://b.test/"}, "item 2 should be an origin"),
        ({"TRUNKLINE__REDIS__URL": "localhost:6379"}, "begins with redis:// or rediss://"),
        ({"TRUNKLINE__REDIS__URL": "redis://h:port"}, "with a valid host and port"),
        ({"TRUNKLINE__DATABASE__URL": "mysql://h/d"}, "should begin with postgresql+asyncpg:// or sqlite+aiosqlite://"),
        ({"TRUNKLINE__DATABASE__URL": "sqlite+aiosqlite:///:memory:"}, "should name a file"),
        ({"POSTGRES_DSN": "sqlite://"}, "should name a file"),
        ({"POSTGRES_DSN": "host=h dbname=d"}, "should begin with postgresql+asyncpg://"),
        ({"OLLAMA_HOST": "ftp://x"}, "begins with http:// or https://"),
        ({"TRUNKLINE__LLM__TEMPERATURE": "3"}, "less than or equal to 2"),
        ({"TRUNKLINE__AGENT__MAX_SECONDS": "nan"}, "finite"),
        ({"TRUNKLINE__AGENT__MAX_SECONDS": "0"}, "greater than 0"),
        ({"TRUNKLINE__TOOLS__ENABLED": "bash,r m"}, "item 2 should be the name of a tool"),
        ({"TRUNKLINE__TOOLS__PERMISSIONS": '["bash: ask", "no rm"]'}, "item 2 'no rm' is no rule; write TOOL: allow"),
        ({"TRUNKLINE__AUTH__KEYS": "short"}, "item 1 should have at least 16 characters"),
        ({"TRUNKLINE__API__CORS_ORIGINS": "[not json"}, "should be a valid list"),
        ({"AUTH_ENABLED": "perhaps"}, "should be a valid boolean"),
    ],
)
def test_rules_of_single_settings(tmp_path: Path, environ: dict[str, str], rule: str | None) -> None:
    if rule is None:
        assert load_settings(environ, tmp_path) == Settings()
    else:
        assert rule in only_problem(tmp_path, **environ)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ({"AUTH_ENABLED": "0", "API_HOST": "0.0.0.0"}, {"TRUNKLINE__AUTH__ALLOW_INSECURE": "1"}),
        ({"AUTH_ENABLED": "0", "API_HOST": "agents.test"}, {"API_HOST": "localhost"}),
        ({"AUTH_ENABLED": "0", "API_HOST": "::"}, {"API_HOST": "::1"}),
        ({"TRUNKLINE__API__CORS_ORIGINS": "*"}, {"TRUNKLINE__API__CORS_CREDENTIALS": "0"}),
        ({"API_RELOAD": "1", "API_WORKERS": "2"}, {"API_WORKERS": "1"}),
        ({"TRUNKLINE__WORKER__RENEW_SECONDS": "4"}, {"TRUNKLINE__WORKER__LEASE_SECONDS": "9"}),
        ({"TRUNKLINE__LLM__BACKOFF_SECONDS": "31"}, {"TRUNKLINE__LLM__BACKOFF_MAX_SECONDS": "31"}),
        (
            {"TRUNKLINE__LLM__MAX_OUTPUT_TOKENS": "8", "TRUNKLINE__LLM__CONTEXT_TOKENS": "8"},
            {"TRUNKLINE__LLM__CONTEXT_TOKENS": "9"},
        ),
        ({"TRUNKLINE__PAYLOADS__MAX_BYTES": "2048"}, {"TRUNKLINE__PAYLOADS__INLINE_BYTES": "2048"}),
        ({"TRUNKLINE__PAYLOADS__STORE": "s3"}, {"TRUNKLINE__PAYLOADS__S3_BUCKET": "b"}),
        ({"TRUNKLINE__STREAM__KEEP_ALIVE_SECONDS": "300"}, {"TRUNKLINE__STREAM__IDLE_TIMEOUT_SECONDS": "301"}),
    ],
)
def test_rules_between_settings(tmp_path: Path, wrong: dict[str, str], right: dict[str, str]) -> None:
    problem = only_problem(tmp_path, **wrong)
    assert all(name in problem for name in wrong)
    load_settings({**wrong, **right}, tmp_path)


def test_a_rule_between_settings_tells_the_defaults_that_it_meets(tmp_path: Path) -> None:
    write(tmp_path, "config.toml", "[worker]\nrenew_seconds = 5\n")
    assert only_problem(tmp_path) == (
        f"[worker] renew_seconds = 5 ({tmp_path / 'config.toml'}): renew_seconds should be less than half of "
        "lease_seconds, or one late renewal loses the lease (worker.lease_seconds is 6 by default)"
    )


def test_a_rule_is_not_told_of_a_setting_that_is_wrong_by_itself(tmp_path: Path) -> None:
    environ = {"TRUNKLINE__WORKER__LEASE_SECONDS": "x", "TRUNKLINE__WORKER__RENEW_SECONDS": "7"}
    assert only_problem(tmp_path, **environ).startswith("TRUNKLINE__WORKER__LEASE_SECONDS")


def test_rules_hold_for_settings_made_in_code() -> None:
    with pytest.raises(ValueError, match="renew_seconds should be less than half"):
        Settings(worker=WorkerSettings(renew_seconds=4))


@pytest.mark.parametrize(
    "environ",
    [
        {"TRUNKLINE__AUTH__KEYS": "hunter2"},
        {"POSTGRES_DSN": "mysql://u:hunter2@h/d"},
        {"POSTGRES_DSN": "postgresql://u:hunter2/x@h:1/d"},
        {"TRUNKLINE__REDIS__URL": "http://u:hunter2@h/0"},
        {"TRUNKLINE__REDIS__URL": "redis://u:hunter2/x@h/0"},
        {"DB_HOST": "db/", "DB_PASSWORD": "hunter2"},
        {"TRUNKLINE__AUTH__KEY": "hunter2"},
    ],
)
def test_no_error_shows_a_secret(tmp_path: Path, environ: dict[str, str]) -> None:
    assert "hunter2" not in only_problem(tmp_path, **environ)


def test_no_error_shows_a_secret_of_the_config_file(tmp_path: Path) -> None:
    write(tmp_path, "config.toml", f'[llm]\napi_keys = "{SECRET}"\napi_key = ["{SECRET}"]\nmodel = ["{SECRET}"]\n')
    told = problems(tmp_path)
    assert len(told) == 3
    assert SECRET not in "".join(told)
