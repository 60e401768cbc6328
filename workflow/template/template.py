"""One template: a folder with `template.toml` and `files/`, read and checked whole before anybody uses it."""

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, ValidationError

from shared.errors import AppError, ErrorCode
from workflow.template.render import FORMS, fill, markers, unfit

MANIFEST = "template.toml"
MAX_FILES = 300
MAX_BYTES = 4 * 1024 * 1024
NAME = re.compile(r"[a-z][a-z0-9-]{0,49}")
SAFE_PART = re.compile(r"[\w.()\[\]@+-][\w .()\[\]@+-]*", re.ASCII)
# What a try of the template leaves in its folder.
LEFT_OVERS = {"__pycache__", ".pytest_cache", ".venv", "node_modules"}
SETUP_PROGRAMS = Path(__file__).with_name("setup")


class TemplateError(AppError):
    """A template that cannot be used as it is; the detail says which, and what is wrong with it."""

    def __init__(self, detail: str) -> None:
        super().__init__(ErrorCode.INVALID_CONFIG, detail)


class BadVariables(Exception):
    """The values given for the variables break rules: `faults`, a sentence each."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _expression(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from error
    return pattern


Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Variable(_Model):
    """`pattern` must match the whole value. Only a variable that has one may stand in code without a form."""

    description: Text
    default: str
    pattern: Annotated[str, AfterValidator(_expression)] | None = None

    def fault(self, value: str) -> str | None:
        if found := unfit(value):
            return found
        if self.pattern is not None and not re.fullmatch(self.pattern, value):
            return f"does not match {self.pattern}"
        return None


class Dependencies(_Model):
    """`lock` names the file that pins the packages with their hashes; `install` gets them where there is a network."""

    kind: Literal["python", "npm"]
    lock: Text
    install: Text


class Manifest(_Model):
    """`next`: commands that a developer runs next, in the project's folder. `check`: the one that proves it whole."""

    description: Text
    check: Text
    next: list[Text] = []
    variables: dict[str, Variable] = {}
    dependencies: Dependencies | None = None


@dataclass(frozen=True, slots=True)
class File:
    """`path` is relative, with slashes. In a source it may hold markers, as may the content where it is UTF-8."""

    path: str
    content: bytes
    executable: bool


@dataclass(frozen=True)
class Template:
    name: str
    manifest: Manifest
    sources: tuple[File, ...]

    @cached_property
    def installed_name(self) -> str | None:
        """The folder of its dependencies: another lock or another set-up is another folder. None: it has none."""
        if not (needed := self.manifest.dependencies):
            return None
        (lock,) = [source.content for source in self.sources if source.path == needed.lock]
        setup = (SETUP_PROGRAMS / f"{needed.kind}.sh").read_bytes()
        return f"{self.name}-{sha256(lock + setup).hexdigest()[:8]}"

    def values(self, given: Mapping[str, str]) -> dict[str, str]:
        """Every variable's value. Raises BadVariables."""
        variables = self.manifest.variables
        faults = [
            f"{self.name} has no variable {name!r}. It has: {', '.join(variables) or 'none'}."
            for name in given
            if name not in variables
        ]
        values = {name: given.get(name, variable.default) for name, variable in variables.items()}
        faults += [
            f"{name} {fault}; it was {values[name][:80]!r}"
            for name, variable in variables.items()
            if (fault := variable.fault(values[name]))
        ]
        if faults:
            raise BadVariables(faults)
        return values

    def render(self, values: Mapping[str, str]) -> list[File]:
        """`values` as `values()` gives them. Raises BadVariables where they make no safe file name, or one twice."""
        files = [File(fill(s.path, values), _filled(s.content, values), s.executable) for s in self.sources]
        paths = [file.path for file in files]
        faults = [f"{path!r} is not a file name that is safe everywhere" for path in paths if not _is_safe(path)]
        faults += [f"two files would be {path}" for path in sorted({p for p in paths if paths.count(p) > 1})]
        if faults:
            raise BadVariables(faults)
        return sorted(files, key=lambda file: file.path)

    def commands(self, values: Mapping[str, str]) -> list[str]:
        return [fill(command, values) for command in self.manifest.next]

    def check(self, values: Mapping[str, str]) -> str:
        return fill(self.manifest.check, values)


def _filled(content: bytes, values: Mapping[str, str]) -> bytes:
    text = _text(content)
    return content if text is None else fill(text, values).encode()


def _text(content: bytes) -> str | None:
    """None: not UTF-8, so it is copied as it is."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None


def _is_safe(path: str) -> bool:
    return all(SAFE_PART.fullmatch(part) and part not in (".", "..") for part in path.split("/"))


def load_template(folder: Path) -> Template:
    """Reads and checks it: whatever defaults and patterns allow will render. Raises TemplateError."""
    try:
        if not NAME.fullmatch(folder.name):
            raise TemplateError(f"The template {folder} should be named like {NAME.pattern}.")
        manifest = Manifest.model_validate(tomllib.loads((folder / MANIFEST).read_text("utf-8")))
        template = Template(folder.name, manifest, tuple(_sources(folder / "files")))
    except (ValidationError, ValueError, OSError) as error:
        raise TemplateError(f"The template {folder} cannot be read: {error}") from error
    if faults := list(_faults(template)):
        raise TemplateError(f"The template {folder} is wrong: {'; '.join(faults)}.")
    return template


def _sources(folder: Path) -> Iterator[File]:
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        if LEFT_OVERS.intersection(inner.parts) or path.is_dir():
            continue
        yield File(inner.as_posix(), path.read_bytes(), os.access(path, os.X_OK))


def _faults(template: Template) -> Iterator[str]:
    sources, needed = template.sources, template.manifest.dependencies
    if not 0 < len(sources) <= MAX_FILES or sum(len(source.content) for source in sources) > MAX_BYTES:
        yield f"files/ should hold 1 to {MAX_FILES} files, of {MAX_BYTES} bytes together"
    if needed and needed.lock not in [source.path for source in sources]:
        yield f"there is no files/{needed.lock}, its lock file"
    for place, text in _texts(template):
        yield from (f"{place} {fault}" for fault in _marker_faults(template, place, text))
    try:
        template.render(template.values({}))
    except BadVariables as error:
        yield from (f"with the defaults, {fault}" for fault in error.faults)
    except KeyError:
        return  # a marker that is told already


def _texts(template: Template) -> Iterator[tuple[str, str]]:
    """Everything that may hold markers, and its name."""
    yield "next", "\n".join([*template.manifest.next, template.manifest.check])
    for source in template.sources:
        yield "a file's name", source.path
        yield source.path, _text(source.content) or ""


def _marker_faults(template: Template, place: str, text: str) -> Iterator[str]:
    for name, form in sorted(markers(text)):
        variable = template.manifest.variables.get(name)
        if variable is None:
            yield f"has the marker @@{name}@@, but there is no variable {name}"
        elif form and form not in FORMS:
            yield f"has @@{name}.{form}@@, but the forms are {', '.join(FORMS)}"
        elif not form and variable.pattern is None and PurePosixPath(place).suffix != ".md":
            yield f"has @@{name}@@ without a form, and {name} has no pattern: any text could come to stand in code"
