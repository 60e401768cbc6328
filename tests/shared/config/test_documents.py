"""config.toml, .env.example and docs/configuration.md say what the settings are, and cannot rot."""

import re
from pathlib import Path

import pytest

from scripts.docs_config import CONFIG, DOCS, config_toml, document
from shared.config import Settings, load_settings
from shared.config.aliases import ALIASES
from shared.config.sections import sections, setting_fields
from shared.config.sources import variable_name
from tests.shared.config.test_aliases import setting
from tests.shared.config.test_sources import ROOT, write

HOW = "run: python -m scripts.docs_config"
EXAMPLE_MARK = "  # for example"
ONE_OF = ("jwt.secret", "jwt.public_key", "jwt.jwks_url")  # they exclude one another


def test_config_file_and_tables_are_fresh() -> None:
    assert CONFIG.read_text() == config_toml(), HOW
    assert DOCS.read_text() == document(DOCS.read_text()), HOW


def test_every_setting_and_section_has_a_sentence() -> None:
    sentences = [field.description or "" for field in setting_fields().values()]
    assert all(
        sentence.endswith(".") for sentence in [*sentences, *(model.__doc__ or "" for model in sections().values())]
    )


def test_config_file_sets_nothing_as_it_is(tmp_path: Path) -> None:
    write(tmp_path, "config.toml", CONFIG.read_text())
    assert load_settings({}, tmp_path) == Settings()


@pytest.mark.parametrize("chosen", ONE_OF)
def test_config_file_uncommented_has_every_key_with_its_default_or_a_valid_example(tmp_path: Path, chosen: str) -> None:
    text = re.sub(r"(?m)^#(?=\w+ = )", "", CONFIG.read_text())
    keys = re.findall(rf"(?m)^(\w+) = .*?({EXAMPLE_MARK})?$", text)
    assert len(keys) == len(setting_fields())
    others = [path.split(".")[-1] for path in ONE_OF if path != chosen]
    write(tmp_path, "config.toml", re.sub(rf"(?m)^(?=({'|'.join(others)}) = )", "#", text))
    settings = load_settings({}, tmp_path)
    for (key, is_example), path in zip(keys, setting_fields(), strict=True):
        assert path.split(".")[-1] == key
        default = setting(Settings(), path)
        assert (default is None) == bool(is_example)
        changed = default is None and key not in others
        assert (setting(settings, path) != default) == changed, path


def test_env_example_is_valid_uncommented_and_sets_nothing_as_it_is(tmp_path: Path) -> None:
    text = (ROOT / ".env.example").read_text()
    write(tmp_path, ".env", text)
    assert load_settings({}, tmp_path) == Settings()
    write(tmp_path, ".env", re.sub(r"(?m)^#(?=\w+=)", "", text))
    load_settings({}, tmp_path)
    ours = {*ALIASES, *(variable_name(path) for path in setting_fields())}
    names = re.findall(r"(?m)^#?(\w+)=", text)
    assert all(name in ours or name.endswith("_API_KEY") for name in names)
    assert len(names) > 5
