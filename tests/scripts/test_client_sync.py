"""The blocking client is the async one without async."""

from scripts.client_sync import TARGET, blocking, written


def test_what_stands_there_is_what_is_made() -> None:
    made = written()
    assert {path: path.read_text() for path in TARGET.glob("*.py")} == made, "run python -m scripts.client_sync"


def test_nothing_async_is_left() -> None:
    source = """
from asyncio import sleep

class AsyncThing:
    async def __aenter__(self) -> "AsyncThing":
        async with self.lock:
            return [await self.one(item) async for item in self.items]

    async def aclose(self) -> None:
        await self.client.aclose()
        await sleep(1)
"""
    made = blocking(source)
    assert "sync" not in made.replace("scripts/client_sync.py", "")
    assert "class Thing:" in made
    assert "def close(self)" in made
    assert "from time import sleep" in made
