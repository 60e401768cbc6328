"""What all metrics have in common, and that docs/operations.md lists each of them."""

import re
from pathlib import Path

from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from gateway.metrics import GatewayMetrics
from modem.metrics import ChoreMetrics
from shared.metrics import OTHER, label, may_read
from workflow.metrics import RuntimeMetrics

ROOT = Path(__file__).resolve().parents[2]
ROW = re.compile(r"^\| `(trunkline_\w+)` \| (\w+) \| ([^|]*) \|", re.MULTILINE)
FORBIDDEN = {"run", "run_id", "thread", "thread_id", "workspace", "key", "user", "request_id", "worker", "path"}


def registries() -> list[CollectorRegistry]:
    runtime = RuntimeMetrics()
    ChoreMetrics(runtime.registry)
    return [GatewayMetrics().registry, runtime.registry]


def described() -> dict[str, tuple[str, str]]:
    """Name -> type and labels, as the page has them."""
    page = (ROOT / "docs/operations.md").read_text()
    return {name: (kind, labels.replace("`", "").strip()) for name, kind, labels in ROW.findall(page)}


def recorded() -> dict[str, tuple[str, str]]:
    found = {}
    for registry in registries():
        for metric in registry._collector_to_names:
            [family] = metric.describe()  # type: ignore[attr-defined]
            name = f"{family.name}_total" if family.type == "counter" else family.name
            found[name] = (family.type, ", ".join(metric._labelnames))  # type: ignore[attr-defined]
    return found


def test_the_page_lists_each_metric_with_its_type_and_labels_and_no_other() -> None:
    assert described() == recorded()


def test_no_label_is_an_id_and_names_have_the_prefix_and_a_base_unit() -> None:
    for name, (kind, labels) in recorded().items():
        assert name.startswith("trunkline_")
        assert not FORBIDDEN & set(labels.split(", "))
        assert kind != "histogram" or name.endswith("_seconds")


def test_a_label_is_one_of_the_known_values_or_other() -> None:
    assert label("bash", {"bash"}) == "bash"
    assert label("made up", {"bash"}) == OTHER


def test_the_token_is_compared_whole_and_as_a_bearers() -> None:
    token = SecretStr("töken")
    for given, reads in (
        ("Bearer töken", True),
        ("bearer  töken ", True),
        ("töken", False),
        ("Basic töken", False),
        ("Bearer töke", False),
        ("", False),
    ):
        assert may_read(token, given) is reads, given
