"""The files of a sandbox as a whole, whoever provides it."""

from collections.abc import AsyncIterator

import pytest

from tests.workflow.sandbox.conformance.box import Box, new_box
from workflow.sandbox.base import FileError, Packable, SandboxProvider, SandboxRefused
from workflow.sandbox.sandboxd_parts import PART_BYTES

EXCLUDE = ["node_modules"]


def packable(box: Box) -> Packable:
    assert isinstance(box.sandbox, Packable)
    return box.sandbox


async def packed(box: Box, known: str = "", max_bytes: int = 2**40) -> tuple[str, bytes | None]:
    async with packable(box).packed(EXCLUDE, known, max_bytes) as files:
        if files.pieces is None:
            return files.fingerprint, None
        return files.fingerprint, b"".join([piece async for piece in files.pieces])


async def once(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def test_a_workspace_goes_into_another_sandbox_as_it_is(box: Box, provider: SandboxProvider) -> None:
    await box.run(
        "mkdir -p a/b node_modules/x empty; echo hello > a/b/file; ln -s a/b link; echo x > node_modules/x/y;"
        f"head -c {PART_BYTES + 1_000_000} /dev/urandom > large; echo '#!/bin/sh' > run; chmod +x run"
    )
    look = "find . | sort | grep -v node_modules; sha256sum large a/b/file; cat link/file; test -x run && echo runs"
    (fingerprint, archive), other = await packed(box), await new_box(provider)
    assert archive
    await packable(other).fill(once(archive))
    assert await other.text(look) == await box.text(look)
    assert await packed(box, fingerprint) == (fingerprint, None)
    await box.run("echo more >> a/b/file")
    assert (await packed(box, fingerprint))[0] != fingerprint


async def test_a_sandbox_is_blank_until_something_was_in_it(box: Box, provider: SandboxProvider) -> None:
    assert packable(box).blank
    other = await new_box(provider)
    await packable(other).fill(once((await packed(other))[1] or b""))
    await box.run("true")
    for each in (box, other):
        again = await provider.acquire(each.thread_id, each.sandbox.ref)
        assert isinstance(again, Packable)
        assert not again.blank


async def test_what_cannot_be_packed_or_unpacked_is_refused_and_the_sandbox_goes_on(box: Box) -> None:
    await box.run("head -c 100k /dev/zero > file")
    with pytest.raises(SandboxRefused, match="more than 1000"):
        await packed(box, max_bytes=1000)
    with pytest.raises(FileError, match="no archive"):
        await packable(box).fill(once(b"no archive"))
    assert await box.text("stat -c %s file") == "102400\n"
