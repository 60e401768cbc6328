"""Blobs in an S3-compatible store. Needs the extra `s3`; keys come from AWS's own variables and files."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import boto3.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from shared.errors import AppError, ErrorCode
from shared.payloads.blobs import Lost, Ref, StoreAway

AT_ONCE = 20
PASSING = frozenset({"408", "429", "RequestTimeout", "SlowDown", "Throttling", "ThrottlingException"})
MISSING = frozenset({"404", "NoSuchKey"})


class S3Blobs:
    """`endpoint` None: AWS. boto3 blocks, so calls have threads of their own, AT_ONCE of them.

    They are not asyncio's own few, which also look up addresses: a store that hangs would keep all else waiting.
    """

    def __init__(self, bucket: str, *, prefix: str, endpoint: str | None) -> None:
        self._bucket = bucket
        self._prefix = prefix.strip("/")
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="s3")
        config = Config(
            connect_timeout=5,
            read_timeout=30,
            retries={"mode": "standard", "total_max_attempts": 3},
            max_pool_connections=AT_ONCE,
            # Many compatible stores know neither bucket.host addresses nor the checksums that AWS added later.
            s3={"addressing_style": "path" if endpoint else "auto"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        self._client: Any = boto3.session.Session().client("s3", endpoint_url=endpoint, config=config)

    async def put(self, ref: Ref, data: bytes) -> None:
        await self._call(ref, lambda: self._client.put_object(**self._place(ref), Body=data))

    async def get(self, ref: Ref) -> bytes:
        found: bytes = await self._call(ref, lambda: self._read(ref))
        return found

    async def delete(self, ref: Ref) -> None:
        await self._call(ref, lambda: self._client.delete_object(**self._place(ref)))

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def _read(self, ref: Ref) -> bytes:
        with self._client.get_object(**self._place(ref))["Body"] as body:
            found: bytes = body.read()
            return found

    def _place(self, ref: Ref) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": "/".join(filter(None, (self._prefix, ref.path)))}

    async def _call(self, ref: Ref, call: Callable[[], Any]) -> Any:
        with _told(ref):
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)


@contextmanager
def _told(ref: Ref) -> Iterator[None]:
    """What boto3 raises, as the protocol has it."""
    try:
        yield
    except ClientError as error:
        code, status = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
        if code in MISSING:
            raise Lost(ref, "is not in the bucket any more") from error
        if status >= 500 or code in PASSING:
            raise StoreAway(ref.store, error) from error
        raise AppError(ErrorCode.INVALID_CONFIG, f"The store of large results refused: {error}") from error
    except NoCredentialsError as error:
        detail = "There are no keys for S3: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        raise AppError(ErrorCode.INVALID_CONFIG, detail) from error
    except (BotoCoreError, OSError) as error:
        raise StoreAway(ref.store, error) from error
