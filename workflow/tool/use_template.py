"""Writes a project from a code template: all of its files, or none."""

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from pydantic import Field, field_validator

from shared.types import JSON
from workflow.sandbox.base import TEMPLATES, WORKSPACE, FileChanged, FileError, FileWrite
from workflow.template.render import unfit
from workflow.template.template import BadVariables, File, Template
from workflow.template.templates import Templates, load_templates
from workflow.tool.base import Args, Effect, Tool, ToolContext, ToolResult
from workflow.tool.content import digest
from workflow.tool.display import count_of
from workflow.tool.paths import resolve
from workflow.tool.template_look import Look, look

SHOWN_FILES = 100


class VariableValue(Args):
    name: str = Field(description="The variable.")
    value: str = Field(description="Its value, one line.")


class TemplateArgs(Args):
    template: str | None = Field(None, description="The template's name. Needed unless list is true.")
    destination: str = Field(WORKSPACE, description="The project's folder: absolute, or relative to /workspace.")
    variables: Sequence[VariableValue] = Field([], description="Values of its variables. Default: their defaults.")
    overwrite: bool = Field(False, description="Whether files that exist are replaced.")
    list: bool = Field(False, description="Tells what templates there are, and writes nothing.")

    @field_validator("variables", mode="before")
    @classmethod
    def _from_object(cls, given: Any) -> Any:
        """Many models send {"name": "value"}, which Gemini's schemas cannot say."""
        if not isinstance(given, dict):
            return given
        return [{"name": name, "value": value} for name, value in given.items()]


@dataclass(frozen=True, slots=True)
class Project:
    """A template with its values, on its way to a folder."""

    template: Template
    values: Mapping[str, str]
    folder: str
    files: Sequence[File]

    @property
    def paths(self) -> list[str]:
        return [posixpath.join(self.folder, file.path) for file in self.files]


class UseTemplateTool(Tool[TemplateArgs]):
    """`templates` None: the built-in ones."""

    name: ClassVar[str] = "use_template"
    effect: ClassVar[Effect] = Effect.IDEMPOTENT
    Args = TemplateArgs

    def __init__(self, templates: Templates | None = None) -> None:
        self._given = templates

    @cached_property
    def _templates(self) -> Templates:
        return self._given or load_templates()

    @cached_property
    def description(self) -> str:
        return f"{super().description} There are: {', '.join(self._templates.names)}."

    async def run(self, args: TemplateArgs, ctx: ToolContext) -> ToolResult:
        if args.list:
            return await self._listed(ctx)
        template = self._templates.get(args.template or "")
        if template is None:
            return self._unknown(args.template)
        folder = resolve(args.destination)
        try:
            values = template.values({given.name: given.value for given in args.variables})
            project = Project(template, values, folder, template.render(values))
        except BadVariables as error:
            return _refused(error.faults)
        if fault := _folder_fault(folder):
            return _refused([fault])
        return await _write(project, args.overwrite, ctx)

    async def recover(self, args: TemplateArgs, ctx: ToolContext) -> ToolResult | None:
        """The files are known by the call's key, and its result was written down with them."""
        if args.list:
            return None
        note = await (await ctx.sandbox()).recall(ctx.key, ctx.epoch)
        return None if note is None else ToolResult.decode(note)

    def _unknown(self, name: str | None) -> ToolResult:
        if name is None:
            text = "Which template? Give its name, or list=true to learn more of each."
            return ToolResult.error("invalid_arguments", f"{text} There are: {', '.join(self._templates.names)}.")
        near = self._templates.near(name)
        guess = f" Did you mean {' or '.join(near)}?" if near else ""
        text = f"There is no template {name[:80]!r}.{guess} There are: {', '.join(self._templates.names)}."
        return ToolResult.error("not_found", text, {"suggestions": [*near]})

    async def _listed(self, ctx: ToolContext) -> ToolResult:
        templates = list(self._templates)
        found = await look(await ctx.sandbox(), ctx, templates)
        entries: list[JSON] = [_entry(template, found) for template in templates]
        return ToolResult(ok=True, content="\n".join(map(_entry_text, entries)), data={"templates": entries})


def _folder_fault(folder: str) -> str | None:
    if fault := unfit(folder):
        return f"the destination {fault}"
    if not f"{folder}/".startswith(f"{WORKSPACE}/"):
        return f"{folder} is not in {WORKSPACE}, where projects are kept. Choose a folder there."
    return None


async def _write(project: Project, overwrite: bool, ctx: ToolContext) -> ToolResult:
    sandbox = await ctx.sandbox()
    found = await look(sandbox, ctx, [project.template], [project.folder, *project.paths])
    hashes = await sandbox.hashes(project.paths)
    plan = [
        FileWrite(path, file.content, file.executable or None, hashes[path] or "absent")
        for path, file in zip(project.paths, project.files, strict=True)
    ]
    if faults := [*_way_faults(project, found.real), *([] if overwrite else _present(plan))]:
        return _refused(faults)
    result = _written(project, plan, found)
    try:
        return ToolResult.decode((await sandbox.write(plan, ctx.key, ctx.epoch, result.encode())).note)
    except FileChanged as error:
        return _refused([f"{error.path} was written by somebody else just now. Look at it first."])
    except FileError as error:
        return _refused([error.detail])


def _way_faults(project: Project, real: Sequence[str]) -> list[str]:
    """No file is written through a link that leads out of the project's folder, nor out of the workspace."""
    if len(real) != 1 + len(project.paths):
        return ["the sandbox did not tell where the files would go. Call it again."]
    root = real[0]
    if fault := _folder_fault(root):
        return [f"{project.folder} is a link, and {fault}"]
    return [
        f"{path} would go to {target}, out of the project's folder: there is a link on its way."
        for path, target in zip(project.paths, real[1:], strict=True)
        if not target.startswith(f"{root}/")
    ]


def _present(plan: Sequence[FileWrite]) -> list[str]:
    """A file that is what it would become is in nobody's way."""
    return [
        f"{file.path} exists. Choose another destination, or set overwrite to true if it may be replaced."
        for file in plan
        if file.expect not in ("absent", digest(file.content))
    ]


def _refused(faults: Sequence[str]) -> ToolResult:
    return ToolResult.error("refused", "\n".join(["Nothing was written:", *(f"- {fault}" for fault in faults)]))


def _written(project: Project, plan: Sequence[FileWrite], found: Look) -> ToolResult:
    template, missing = project.template, found.missing(project.template)
    setup = _setup_commands(template, missing)
    commands = [*setup, *template.commands(project.values)]
    check = template.check(project.values)
    lines = [
        f"Wrote the template {template.name} to {project.folder}, {count_of(len(plan), 'file')}:",
        *tree([file.path for file in project.files]),
        *([f"To get its packages, this sandbox needs a network: {missing}."] if missing else []),
        f"Next, in {project.folder}:",
        *(f"- {command}" for command in commands),
        f"To check the project: {check}",
    ]
    data: JSON = {
        "template": template.name,
        "destination": project.folder,
        "variables": dict(project.values),
        "files": [{"path": file.path, "size": len(file.content), "sha256": digest(file.content)} for file in plan],
        "setup": setup,
        "next": commands,
        "check": check,
    }
    return ToolResult(ok=True, content="\n".join(lines), data=data, events=[("template", data)])


def _setup_commands(template: Template, missing: str | None) -> list[str]:
    if not (needed := template.manifest.dependencies):
        return []
    return [needed.install if missing else f"{TEMPLATES}/{template.installed_name}/setup"]


def tree(paths: Sequence[str]) -> list[str]:
    """Sorted paths as a tree: a line each, folders once."""
    lines: list[str] = []
    shown: tuple[str, ...] = ()
    for path in paths[:SHOWN_FILES]:
        *folders, name = path.split("/")
        common = len(posixpath.commonprefix([shown, tuple(folders)]))
        lines += [f"{'  ' * depth}{folders[depth]}/" for depth in range(common, len(folders))]
        lines.append(f"{'  ' * len(folders)}{name}")
        shown = tuple(folders)
    more = len(paths) - SHOWN_FILES
    return [*lines, f"… {count_of(more, 'more file')}"] if more > 0 else lines


def _entry(template: Template, found: Look) -> JSON:
    manifest = template.manifest
    return {
        "name": template.name,
        "description": manifest.description,
        "variables": {name: variable.model_dump() for name, variable in manifest.variables.items()},
        "missing": found.missing(template),
    }


def _entry_text(entry: JSON) -> str:
    lines = [f"{entry['name']}: {entry['description']}"]
    for name, variable in entry["variables"].items():
        pattern = f", must match {variable['pattern']}" if variable["pattern"] else ""
        lines.append(f"  {name}: {variable['description']} Default: {variable['default']!r}{pattern}")
    if entry["missing"]:
        lines.append(f"  Without a network it cannot run: {entry['missing']}.")
    return "\n".join(lines)
