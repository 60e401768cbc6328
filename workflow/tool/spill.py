"""Keeps output that is too long for the model in a file of the sandbox, where grep and read_file reach it."""

from workflow.sandbox.base import WORKSPACE, FileWrite, Sandbox, SandboxRefused
from workflow.tool.base import ToolContext

AGENT_FOLDER = f"{WORKSPACE}/.agent"
UNTRACKED = FileWrite(f"{AGENT_FOLDER}/.gitignore", b"*\n")


async def save_output(sandbox: Sandbox, ctx: ToolContext, key: str, name: str) -> str | None:
    """Writes all that the command `key` has put out so far. Returns the path; None when it cannot be kept."""
    path = f"{AGENT_FOLDER}/outputs/{name}.txt"
    try:
        await sandbox.write([UNTRACKED], f"{ctx.key}/untracked", ctx.epoch, b"")
        await sandbox.save_output(key, path, ctx.key, ctx.epoch)
    except SandboxRefused:  # no disk space, perhaps: what the model is shown is worth having without it
        return None
    return path
