"""envd's filesystem service."""

from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from tests.support.e2b_double.box import Box
from tests.support.e2b_double.connect import RpcError, unary, unserved
from tests.support.machines.machine import Entry, MachineError

SERVICE = "/filesystem.Filesystem"


class Filesystem:
    def routes(self) -> list[web.AbstractRouteDef]:
        return [
            unary(f"{SERVICE}/Stat", _stat),
            unary(f"{SERVICE}/ListDir", _list_dir),
            unary(f"{SERVICE}/MakeDir", _make_dir),
            unary(f"{SERVICE}/Move", _move),
            unary(f"{SERVICE}/Remove", _remove),
            unserved(f"{SERVICE}/WatchDir"),
        ]


async def _stat(box: Box, message: Any) -> Any:
    return {"entry": _entry(box, await box.machine.info(box.machine.absolute(message["path"])))}


async def _list_dir(box: Box, message: Any) -> Any:
    path = box.machine.absolute(message["path"])
    if not (await box.machine.info(path)).directory:
        raise RpcError("invalid_argument", f"path is not a directory: {path}")
    entries = await box.machine.list(path, message.get("depth") or 1)
    return {"entries": [_entry(box, entry) for entry in entries]}


async def _make_dir(box: Box, message: Any) -> Any:
    made = await box.machine.ask("make_folder", path=box.machine.absolute(message["path"]), mode=0o755)
    return {"entry": _entry(box, Entry(**made["entry"]))}


async def _move(box: Box, message: Any) -> Any:
    source, target = (box.machine.absolute(message[name]) for name in ("source", "destination"))
    moved = await box.machine.ask("move", source=source, target=target)
    return {"entry": _entry(box, Entry(**moved["entry"]))}


async def _remove(box: Box, message: Any) -> Any:
    """What is not there is removed already."""
    try:
        await box.machine.ask("remove", path=box.machine.absolute(message["path"]))
    except MachineError as error:
        if error.code != "ENOENT":
            raise
    return {}


def _entry(box: Box, entry: Entry) -> dict[str, Any]:
    kind = "DIRECTORY" if entry.directory else "FILE" if entry.regular else "UNSPECIFIED"
    link = {"symlinkTarget": entry.link, "isSymlink": True} if entry.link else {}
    return {
        "name": entry.name,
        "type": f"FILE_TYPE_{kind}",
        "path": entry.path,
        "size": str(entry.size),
        "mode": entry.mode,
        "permissions": entry.permissions,
        "owner": box.machine.user,
        "group": box.machine.user,
        "modifiedTime": datetime.fromtimestamp(entry.mtime, UTC).isoformat().replace("+00:00", "Z"),
        **link,
    }
