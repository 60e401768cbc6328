"""Whether this machine can isolate: tried out at the host's start, in a sandbox like every other."""

import asyncio
from pathlib import Path

from workflow.sandbox.base import SandboxError
from workflow.sandbox.inside import Ground, raise_refusal, start
from workflow.sandbox.link import LinkClosed

PROBE_SECONDS = 10
# Every line that it prints is something that must not be possible.
ATTEMPTS = r"""
[ "$(id -u)" = 1000 ] || echo "it does not run as its own user"
pattern=/proc/sys/kernel/core_pattern
(cat $pattern >$pattern) 2>/dev/null && echo "it can change the kernel's settings"
unshare --user true 2>/dev/null && echo "it can make a user namespace"
(: >/usr/probe) 2>/dev/null && echo "it can write to /usr"
grep -q '^CapEff:[[:space:]]*0*$' /proc/self/status || echo "it has capabilities"
grep -q '^NoNewPrivs:[[:space:]]*1$' /proc/self/status || echo "it can gain privileges"
grep -q '^Seccomp:[[:space:]]*2$' /proc/self/status || echo "its system calls are not filtered"
[ "$(tr -d '\0' </proc/1/environ | wc -c)" = 0 ] || echo "it sees the host's environment"
[ "$(ls /sys/class/net 2>/dev/null | grep -cv '^lo$')" = 0 ] || echo "it sees the host's network"
echo probed
"""


async def probe(ground: Ground, folder: Path) -> str | None:
    """None when sandboxes are tight here; else what is wrong and what to do."""
    folder.mkdir(mode=0o700, exist_ok=True)
    output = bytearray()
    try:
        inside = await start(ground, folder, "probe")
    except SandboxError as error:
        return error.detail
    try:
        message = {"op": "run", "command": ATTEMPTS, "cwd": "", "env": {}}
        async with asyncio.timeout(PROBE_SECONDS):
            raise_refusal(await inside.link.start(message, output.extend)[1])
    except (LinkClosed, TimeoutError, SandboxError) as error:
        return f"Sandboxes are unavailable: a first command could not be run ({type(error).__name__}: {error})."
    finally:
        await inside.stop()
    *holes, last = output.decode(errors="replace").splitlines() or [""]
    if last == "probed" and not holes:
        return None
    told = "; ".join([*holes, *([] if last == "probed" else [last or "its shell did not run"])])
    return f"Sandboxes are unavailable: a sandbox on this machine would not be tight: {told}."
