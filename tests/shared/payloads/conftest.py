"""The three stores, each as it is in use: a real Valkey, a folder, and moto's S3 over HTTP."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from shared.config import PayloadsSettings, Settings
from shared.events.outside import Outside
from shared.redis import connect

BUCKET = "payloads-of-a-test"
INLINE_BYTES, MAX_BYTES = 2048, 8192


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Its endpoint; the keys are in the environment, where boto3 looks for them."""
    for name, value in {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    client = boto3.client("s3", endpoint_url=s3_endpoint)
    client.create_bucket(Bucket=BUCKET)
    client.close()
    return s3_endpoint


Opens = Callable[[], Awaitable[Outside]]


@pytest.fixture(params=["redis", "folder", "s3"])
def payloads(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Settings with small limits, for each store."""
    chosen = PayloadsSettings(inline_bytes=INLINE_BYTES, max_bytes=MAX_BYTES, spill_bytes=0, store=request.param)
    if request.param == "s3":
        endpoint = request.getfixturevalue("bucket")
        chosen = chosen.model_copy(update={"s3_bucket": BUCKET, "s3_endpoint": endpoint})
    return Settings(data=tmp_path, payloads=chosen)


@pytest.fixture
async def opened(payloads: Settings, redis_url: str) -> AsyncIterator[Opens]:
    """What a process has, each time anew."""
    async with AsyncExitStack() as stack:

        async def ring(_: str | None) -> None:
            pass

        async def open_one() -> Outside:
            client = connect(redis_url, timeout_seconds=5, max_connections=10)
            stack.push_async_callback(client.aclose)
            out = Outside.over(client, payloads, ring, patience_seconds=2)
            stack.push_async_callback(out.close)
            return out

        yield open_one
