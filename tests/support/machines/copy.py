"""What snapshots keep of a machine: its files, not its processes."""

from tests.support.machines.machine import OUT, Machine


async def pack(machine: Machine) -> bytes:
    """An archive of the workspace and the home."""
    folders = ["workspace", machine.home.lstrip("/")]
    tar = await machine.spawn(["tar", "-C", "/", "-cf", "-", *folders], env={}, cwd="/")
    archive = b"".join([data async for kind, data in tar.output() if kind == OUT])
    assert tar.code == 0
    return archive


async def unpack(machine: Machine, archive: bytes) -> None:
    tar = await machine.spawn(["tar", "-C", "/", "-xmf", "-", "--no-overwrite-dir"], env={}, cwd="/", stdin=True)
    await machine.feed(tar.pid, archive, close=True)
    said = b"".join([data async for _, data in tar.output()])
    assert tar.code == 0, said
