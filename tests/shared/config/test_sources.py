"""Where settings come from, and which source wins."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from shared.config import ApiSettings, Settings, export_env_file, load_settings
from shared.errors import AppError

ROOT = Path(__file__).parents[3]


def write(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text)
    return path


def test_nothing_given_means_the_defaults(tmp_path: Path) -> None:
    assert load_settings({}, tmp_path) == Settings()


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Settings().api.port = 1


@given(
    environment=st.none() | st.tuples(st.booleans(), st.integers(1, 65535)),
    env_file=st.none() | st.tuples(st.booleans(), st.integers(1, 65535)),
    config=st.none() | st.integers(1, 65535),
)
def test_environment_beats_env_file_beats_config_file_beats_default(
    tmp_path_factory: pytest.TempPathFactory,
    environment: tuple[bool, int] | None,
    env_file: tuple[bool, int] | None,
    config: int | None,
) -> None:
    folder = tmp_path_factory.mktemp("config")
    names = {True: "API_PORT", False: "TRUNKLINE__API__PORT"}
    environ = {names[environment[0]]: str(environment[1])} if environment else {}
    if env_file:
        write(folder, ".env", f"{names[env_file[0]]}={env_file[1]}\n")
    if config:
        write(folder, "config.toml", f"[api]\nport = {config}\n")
    expected = [source[1] for source in (environment, env_file) if source] + [config or 8000]
    assert load_settings(environ, folder).api.port == expected[0]


def test_a_source_overrides_single_keys_of_a_section(tmp_path: Path) -> None:
    write(tmp_path, "config.toml", '[api]\nhost = "0.0.0.0"\nport = 1\n')
    api = load_settings({"TRUNKLINE__API__PORT": "2"}, tmp_path).api
    assert (api.host, api.port, api.workers) == ("0.0.0.0", 2, 1)


def test_settings_without_a_section_come_from_every_source(tmp_path: Path) -> None:
    write(tmp_path, "config.toml", 'env = "prod"\ndata = "/from/toml"\n')
    settings = load_settings({}, tmp_path)
    assert (settings.env, settings.data) == ("prod", Path("/from/toml"))
    settings = load_settings({"ENV": "dev", "TRUNKLINE__DATA": "/from/environment"}, tmp_path)
    assert (settings.env, settings.data) == ("dev", Path("/from/environment"))


@pytest.mark.parametrize("where", ["environment", ".env"])
def test_another_config_file_can_be_named(tmp_path: Path, where: str) -> None:
    write(tmp_path, "config.toml", "[api]\nport = 1\n")
    other = write(tmp_path / "etc", "other.toml", "[api]\nport = 2\n")
    environ = {"TRUNKLINE_CONFIG": str(other)} if where == "environment" else {}
    if where == ".env":
        write(tmp_path, ".env", f"TRUNKLINE_CONFIG={other}\n")
    assert load_settings(environ, tmp_path).api.port == 2


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("https://a.test", ["https://a.test"]),
        ("https://a.test, https://b.test,", ["https://a.test", "https://b.test"]),
        ('["https://a.test", "https://b.test"]', ["https://a.test", "https://b.test"]),
        ("[]", []),
    ],
)
def test_a_list_in_a_variable_has_commas_or_is_json(tmp_path: Path, text: str, items: list[str]) -> None:
    assert load_settings({"TRUNKLINE__API__CORS_ORIGINS": text}, tmp_path).api.cors_origins == items


def test_an_empty_variable_counts_as_not_set(tmp_path: Path) -> None:
    write(tmp_path, ".env", "API_PORT=\nTRUNKLINE__LLM__MODEL=\n")
    write(tmp_path, "config.toml", "[api]\nport = 7\n")
    settings = load_settings({"TRUNKLINE__API__PORT": "", "TRUNKLINE_CONFIG": " "}, tmp_path)
    assert (settings.api.port, settings.llm.model) == (7, None)


def test_env_file_values_may_be_quoted_exported_commented_and_refer_to_each_other(tmp_path: Path) -> None:
    lines = ("export API_HOST='0.0.0.0'  # everywhere", 'NAME="a model"', "TRUNKLINE__LLM__MODEL=${NAME}", "OTHER=x")
    write(tmp_path, ".env", "\ufeff" + "\n".join(lines))
    settings = load_settings({}, tmp_path)
    assert (settings.api.host, settings.llm.model) == ("0.0.0.0", "a model")


def test_env_file_can_be_exported_for_libraries_and_the_environment_wins(tmp_path: Path) -> None:
    write(tmp_path, ".env", "OPENAI_API_KEY=from-file\nANTHROPIC_API_KEY=from-file\nEMPTY=\n")
    environ = {"OPENAI_API_KEY": "from-environment"}
    export_env_file(environ, tmp_path)
    assert environ == {"OPENAI_API_KEY": "from-environment", "ANTHROPIC_API_KEY": "from-file"}


def test_variables_of_others_are_left_alone(tmp_path: Path) -> None:
    environ = {
        "TRUNKLINE_URL": "x",
        "TRUNKLINE_API_KEY": "x",
        "OPENAI_API_KEY": "x",
        "API_KEY": "x",
        "POSTGRES_DB": "x",
    }
    assert load_settings(environ, tmp_path) == Settings()


def test_words_are_taken_in_any_case(tmp_path: Path) -> None:
    settings = load_settings({"ENV": "PROD", "LOG_LEVEL": "debug"}, tmp_path)
    assert (settings.env, settings.log.level) == ("prod", "DEBUG")


def test_paths_may_begin_with_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert load_settings({"TRUNKLINE__DATA": "~/data"}, tmp_path).data == Path("/home/ada/data")


def test_places_that_are_not_set_are_in_the_data_folder() -> None:
    settings = Settings(data=Path("/data"))
    assert settings.key_file == Path("/data/key")
    assert settings.sandbox_token_file == Path("/data/sandbox-token")
    assert settings.workspaces == Path("/data/workspaces")
    assert settings.broker_url == settings.redis.url


def test_the_environment_and_the_current_folder_are_read_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "config.toml", "[api]\nport = 7\nworkers = 2\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", {"API_PORT": "8"})
    api = load_settings().api
    assert (api.port, api.workers) == (8, 2)


def test_a_section_is_plain_data_that_ignores_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUNKLINE__API__PORT", "9")
    assert Settings(api=ApiSettings(workers=2)).api.port == 8000


def test_loading_takes_less_than_50_ms(tmp_path: Path) -> None:
    write(tmp_path, "config.toml", (ROOT / "config.toml").read_text())
    environ = {"API_PORT": "1", "DB_HOST": "db", "TRUNKLINE__LLM__MODEL": "m"}
    times = []
    for _ in range(30):  # others may hold the processor: the best of them counts
        start = time.perf_counter()
        load_settings(environ, tmp_path)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.05


def test_importing_the_settings_imports_nothing_heavy() -> None:
    code = (
        "import sys, shared.config; print([m for m in ('litellm', 'celery', 'fastapi', 'redis') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def _show(folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "shared.config"]
    clean = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environ}
    return subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True, check=False)


def test_the_command_prints_what_is_in_force_and_who_set_it(tmp_path: Path) -> None:
    write(tmp_path, "config.toml", "[worker]\nconcurrency = 5\n")
    password = "hunter2hunter2"
    done = _show(
        tmp_path, API_PORT="9000", TRUNKLINE__REDIS__URL=f"redis://:{password}@r/0", DB_HOST="db", DB_PASSWORD=password
    )
    assert done.returncode == 0
    assert "port = 9000  # API_PORT (environment)" in done.stdout
    assert "concurrency = 5  # [worker] concurrency (config.toml)" in done.stdout
    assert 'url = "redis://****@r/0"' in done.stdout
    assert "# public_url is not set" in done.stdout
    assert password not in done.stdout + done.stderr


def test_the_command_fails_with_what_is_wrong(tmp_path: Path) -> None:
    done = _show(tmp_path, API_PORT="0")
    assert (done.returncode, done.stdout) == (1, "")
    assert 'API_PORT = "0" (environment)' in done.stderr


def test_a_mistake_raises_an_error_with_a_code(tmp_path: Path) -> None:
    with pytest.raises(AppError, match="API_PORT") as caught:
        load_settings({"API_PORT": "x"}, tmp_path)
    assert caught.value.code == "invalid_config"
