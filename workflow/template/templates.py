"""The templates that there are: those that come with Trunkline, and those of the operator's folder."""

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path

from workflow.template.template import MANIFEST, Template, TemplateError, load_template

BUILT_IN = Path(__file__).with_name("catalog")


class Templates:
    """By name; of two with the same name, the later one counts."""

    def __init__(self, templates: Iterable[Template]) -> None:
        self._templates = {template.name: template for template in templates}

    def __iter__(self) -> Iterator[Template]:
        return iter(sorted(self._templates.values(), key=lambda template: template.name))

    @property
    def names(self) -> list[str]:
        return sorted(self._templates)

    def get(self, name: str) -> Template | None:
        return self._templates.get(name)

    def near(self, name: str) -> list[str]:
        """Names that somebody may have meant by `name`: those alike, and those that share a word with it."""
        wanted = name.lower().replace("_", "-").replace(" ", "-")
        words = set(wanted.split("-"))
        alike = get_close_matches(wanted, self.names, n=3, cutoff=0.6)
        return list(dict.fromkeys([*alike, *(known for known in self.names if words & set(known.split("-")))]))


def load_templates(folder: Path | None = None) -> Templates:
    """The built-in ones and those in `folder`, which may replace them. Raises TemplateError."""
    folders = [BUILT_IN] if folder is None else [BUILT_IN, folder]
    return Templates(load_template(path) for place in folders for path in _template_folders(place))


def _template_folders(place: Path) -> list[Path]:
    if not place.is_dir():
        raise TemplateError(f"The folder of templates {place} does not exist. Make it, or unset templates.folder.")
    found = sorted(path.parent for path in place.glob(f"*/{MANIFEST}"))
    if not found:
        raise TemplateError(f"The folder of templates {place} holds none: no */{MANIFEST}.")
    return found
