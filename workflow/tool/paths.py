"""Paths as a model writes them: absolute inside the sandbox, or relative to the workspace."""

import posixpath

from workflow.sandbox.base import WORKSPACE


def resolve(path: str, base: str = WORKSPACE) -> str:
    """The absolute path meant, without `.` and `..`. Symlinks are the sandbox's business: nothing is read here."""
    absolute = posixpath.normpath(posixpath.join(base, path.strip()))
    return "/" + absolute.lstrip("/")  # POSIX lets normpath keep two leading slashes
