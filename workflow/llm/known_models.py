"""Which names of models LiteLLM can place, read from its package's files: importing it is for who calls a model."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

PRICES = "model_prices_and_context_window_backup.json"


@dataclass(frozen=True, slots=True)
class KnownModels:
    """`providers`: what a name may begin with, before its slash. `names`: those that need none."""

    providers: list[str]
    names: list[str]


def known_models() -> KnownModels:
    spec = importlib.util.find_spec("litellm")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    prices: dict[str, dict[str, Any]] = orjson.loads((package / PRICES).read_bytes())
    folders = {path.name for path in (package / "llms").iterdir() if path.is_dir() and path.name.isidentifier()}
    listed = {str(entry["litellm_provider"]) for entry in prices.values() if "litellm_provider" in entry}
    return KnownModels(
        providers=sorted(name for name in folders | listed if not name.startswith("_") and " " not in name),
        names=sorted(name for name in prices if "/" not in name and prices[name].get("mode") in ("chat", "responses")),
    )
