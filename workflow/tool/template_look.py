"""What a sandbox has for templates, found out by one command."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from workflow.sandbox.base import TEMPLATES, Command, Sandbox
from workflow.template.template import Template
from workflow.tool.base import ToolContext, unwatched

SECONDS = 20
OUTPUT_CHARS = 200_000


@dataclass(frozen=True, slots=True)
class Look:
    """`installed`: the templates whose packages are there. `real`: where the paths asked for lead, links followed."""

    installed: frozenset[str]
    has_node: bool
    real: Sequence[str]

    def missing(self, template: Template) -> str | None:
        """What is not there that the template needs, and who can get it. None: it has all."""
        needed = template.manifest.dependencies
        if needed is None:
            return None
        if needed.kind == "npm" and not self.has_node:
            cause, cure = "Node.js is not installed", f"apt install nodejs npm, scripts/templates {template.name}"
        elif template.name not in self.installed:
            cause, cure = "its packages are not installed", f"scripts/templates {template.name}"
        else:
            return None
        return f"{cause} here (the operator can change that: {cure})"


async def look(sandbox: Sandbox, ctx: ToolContext, templates: Sequence[Template], paths: Sequence[str] = ()) -> Look:
    """`paths` hold no line breaks."""
    setups = {f"{TEMPLATES}/{each.installed_name}/setup": each.name for each in templates if each.installed_name}
    script = f"command -v node {shlex.join(setups)}; echo; realpath -m -- {shlex.join(paths) or '/'}"
    # A later attempt looks anew: what is there may have changed since.
    command = Command(
        key=f"{ctx.key}/look:{ctx.epoch}",
        epoch=ctx.epoch,
        command=script,
        timeout_seconds=SECONDS,
        output_chars=OUTPUT_CHARS,
    )
    programs, _, real = (await sandbox.exec(command, unwatched)).output.head.partition("\n\n")
    lines = programs.strip().split("\n")
    return Look(
        installed=frozenset(setups[line] for line in lines if line in setups),
        has_node=any(line.endswith("/node") for line in lines),
        real=real.splitlines() if paths else (),
    )
