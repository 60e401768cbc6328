"""What there is where a model expected something else: the help in an error about a path."""

import posixpath
from difflib import get_close_matches

from workflow.sandbox.base import FileError, FileKind, Sandbox
from workflow.tool.base import ToolResult

SUGGESTIONS = 3
LISTED = 10
COMPARED = 2_000  # entries of a folder that a name is looked for in


async def missing(sandbox: Sandbox, path: str) -> ToolResult:
    """The answer to a path that is not there: near names, or what its nearest existing folder holds."""
    folder, names = await _nearest_folder(sandbox, posixpath.dirname(path))
    text = f"There is no {path}."
    if folder != posixpath.dirname(path):
        text += f" Its nearest folder that exists is {folder}."
    lower = {name.lower().rstrip("/"): name for name in names}
    wanted = posixpath.relpath(path, folder).split("/")[0]
    near = [lower[name] for name in get_close_matches(wanted.lower(), lower, n=SUGGESTIONS, cutoff=0.6)]
    if near:
        text += " Did you mean " + " or ".join(posixpath.join(folder, name) for name in near) + "?"
    elif names:
        more = ", …" if len(names) > LISTED else ""
        text += f" {folder} holds: {', '.join(names[:LISTED])}{more}."
    else:
        text += f" {folder} is empty."
    return ToolResult.error("not_found", text, {"path": path, "suggestions": near})


async def _nearest_folder(sandbox: Sandbox, path: str) -> tuple[str, list[str]]:
    """The folder nearest to `path` that exists, and the names in it; those of folders end with a slash."""
    while True:
        try:
            listing = await sandbox.list(path, limit=COMPARED)
        except FileError:
            if path == "/":
                raise
            path = posixpath.dirname(path)
        else:
            return path, [_name(entry.path, entry.kind) for entry in listing.entries]


def _name(path: str, kind: FileKind) -> str:
    return path + "/" if kind is FileKind.DIRECTORY else path
