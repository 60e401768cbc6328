"""Keeps output that is too long for the model in a file of the sandbox, where grep and read_file reach it."""

import re

from workflow.sandbox.base import (
    MAX_WRITE_BYTES,
    WORKSPACE,
    FileWrite,
    Sandbox,
    SandboxError,
    SandboxFenced,
    SandboxRefused,
)
from workflow.tool.base import ToolContext

AGENT_FOLDER = f"{WORKSPACE}/.agent"
UNTRACKED = FileWrite(f"{AGENT_FOLDER}/.gitignore", b"*\n")


async def save_output(sandbox: Sandbox, ctx: ToolContext, key: str, name: str) -> str | None:
    """Writes all that the command `key` has put out so far. Returns the path; None when it cannot be kept."""
    path = _path(name)
    try:
        await sandbox.write([UNTRACKED], f"{ctx.key}/untracked", ctx.epoch, b"")
        await sandbox.save_output(key, path, ctx.key, ctx.epoch)
    except SandboxRefused:  # no disk space, perhaps: what the model is shown is worth having without it
        return None
    return path


async def save_text(sandbox: Sandbox, ctx: ToolContext, text: str) -> str | None:
    """Writes a call's result. Returns the path; None when it cannot be kept. Raises SandboxFenced."""
    path = _path(file_name(ctx.call_id))
    content = text.encode("utf-8", "replace")[: MAX_WRITE_BYTES - len(UNTRACKED.content)]
    try:
        await sandbox.write([UNTRACKED, FileWrite(path, content)], f"{ctx.key}/spill", ctx.epoch, b"")
    except SandboxFenced:
        raise
    except SandboxError:  # the result is certain all the same
        return None
    return path


def file_name(call_id: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", call_id)[:100]


def _path(name: str) -> str:
    return f"{AGENT_FOLDER}/outputs/{name}.txt"
