"""Metrics as a scraper reads them."""

from prometheus_client.parser import text_string_to_metric_families


def value(text: str, name: str, **labels: str) -> float:
    """Of a sample. KeyError where there is none."""
    found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, frozenset(sample.labels.items())): sample.value for sample in found}[
        name, frozenset(labels.items())
    ]


def label_values(text: str, label: str) -> set[str]:
    families = text_string_to_metric_families(text)
    return {sample.labels[label] for family in families for sample in family.samples if label in sample.labels}
