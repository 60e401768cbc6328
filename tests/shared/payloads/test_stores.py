"""Every store keeps the same promises."""

from pathlib import Path
from typing import Any

import pytest

from shared.config import PayloadsSettings, Settings
from shared.errors import AppError, ErrorCode
from shared.ids import new_thread_id
from shared.keys import ThreadKeys
from shared.payloads.blobs import BlobStore, Lost, Ref, StoreAway
from shared.payloads.folder import FolderBlobs
from shared.payloads.in_redis import RedisBlobs
from shared.payloads.payloads import Payloads
from shared.payloads.s3 import S3Blobs
from shared.redis import connect
from tests.shared.payloads.conftest import BUCKET, Opens
from tests.support.ports import free_port

DATA = bytes(range(256)) * 40


@pytest.fixture
async def store(opened: Opens) -> Payloads:
    return (await opened()).store.payloads


async def test_what_was_put_is_got_by_another_process(opened: Opens, store: Payloads) -> None:
    ref = await store.put(new_thread_id(), DATA)
    assert ref.size == len(DATA)
    assert await (await opened()).store.payloads.get(ref) == DATA


async def test_a_blob_that_was_deleted_is_lost_and_may_be_deleted_again(store: Payloads) -> None:
    ref = await store.put(new_thread_id(), DATA)
    for _ in range(2):
        await store.clean(ref.marker)
        await store.clean(f"gone{ref.marker[4:]}")
    with pytest.raises(Lost) as caught:
        await store.get(ref)
    assert caught.value.code is ErrorCode.RESULT_LOST


async def test_the_same_bytes_written_twice_have_two_places(store: Payloads) -> None:
    thread = new_thread_id()
    one, other = [await store.put(thread, DATA) for _ in range(2)]
    await store.clean(one.marker)
    assert one.sha256 == other.sha256
    assert await store.get(other) == DATA


async def test_a_damaged_blob_is_not_taken_for_the_result(redis_url: str, tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    ref = Ref.of("folder", new_thread_id(), DATA)
    await blobs.put(ref, DATA)
    (tmp_path / ref.path).write_bytes(DATA[:-1])
    client = connect(redis_url, timeout_seconds=5, max_connections=2)
    payloads = Payloads(client, {"folder": blobs}, PayloadsSettings(), patience_seconds=0)
    with pytest.raises(Lost, match="damaged"):
        await payloads.get(ref)
    await client.aclose()


async def test_what_is_not_too_large_for_redis_stays_there_whatever_the_store(redis_url: str, tmp_path: Path) -> None:
    settings = PayloadsSettings(store="folder", inline_bytes=1024, spill_bytes=4096)
    client = connect(redis_url, timeout_seconds=5, max_connections=2)
    store = Payloads.over(client, Settings(data=tmp_path, payloads=settings), patience_seconds=0)
    kept = [await store.kept(new_thread_id(), b"x" * size) for size in (1024, 1025, 4096, 4097)]
    assert [ref and ref.store for ref in kept] == [None, "redis", "redis", "folder"]
    await client.aclose()


class Refusing(FolderBlobs):
    """Takes nothing, and says that it is away."""

    async def put(self, ref: Ref, data: bytes) -> None:
        raise StoreAway(ref.store, "no room")


async def test_where_the_store_takes_nothing_a_result_is_kept_in_redis(
    redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(redis_url, timeout_seconds=5, max_connections=2)
    stores: dict[str, BlobStore] = {"redis": RedisBlobs(client, patience_seconds=0), "folder": Refusing(tmp_path)}
    store = Payloads(client, stores, PayloadsSettings(store="folder", spill_bytes=0), patience_seconds=0)
    ref = await store.put(new_thread_id(), DATA)
    assert (ref.store, await store.get(ref)) == ("redis", DATA)
    assert "no room" in caplog.text
    await client.aclose()


class Slow(FolderBlobs):
    """The first write takes more than an hour: it is cleaned up after before it is there."""

    clean: Any

    async def put(self, ref: Ref, data: bytes) -> None:
        if clean := self.__dict__.pop("clean", None):
            await clean(ref.marker)
        await super().put(ref, data)


async def test_a_write_that_was_cleaned_up_after_before_it_was_done_leaves_nothing(
    redis_url: str, tmp_path: Path
) -> None:
    client = connect(redis_url, timeout_seconds=5, max_connections=2)
    blobs = Slow(tmp_path)
    store = Payloads(client, {"folder": blobs}, PayloadsSettings(store="folder", spill_bytes=0), patience_seconds=0)
    blobs.clean = store.clean
    ref = await store.put(new_thread_id(), DATA)
    assert [path.name for path in tmp_path.rglob("*.*")] == [ref.name]
    await store.clean(ref.marker)
    assert list(tmp_path.rglob("*.*")) == []
    await client.aclose()


class Late(FolderBlobs):
    """Twice away, then there."""

    asked = 0

    async def get(self, ref: Ref) -> bytes:
        self.asked += 1
        if self.asked < 3:
            raise StoreAway(ref.store, "not yet")
        return await super().get(ref)


@pytest.mark.parametrize(("patience", "found"), [(None, True), (5, True), (0, False)])
async def test_a_store_that_is_away_is_waited_for(
    redis_url: str, tmp_path: Path, patience: float | None, found: bool
) -> None:
    client = connect(redis_url, timeout_seconds=5, max_connections=2)
    blobs = Late(tmp_path)
    store = Payloads(
        client, {"folder": blobs}, PayloadsSettings(store="folder", spill_bytes=0), patience_seconds=patience
    )
    ref = await store.put(new_thread_id(), DATA)
    if found:
        assert await store.get(ref) == DATA
    else:
        with pytest.raises(StoreAway, match="not yet"):
            await store.get(ref)
    await client.aclose()


async def test_a_store_that_is_not_configured_any_more_is_an_error_to_mend(redis_url: str) -> None:
    client = connect(redis_url, timeout_seconds=5, max_connections=2)
    store = Payloads.over(client, Settings(), patience_seconds=0)
    with pytest.raises(AppError, match="s3_bucket") as caught:
        await store.get(Ref.of("s3", new_thread_id(), DATA))
    assert caught.value.code is ErrorCode.INVALID_CONFIG
    await client.aclose()


async def test_a_blob_in_redis_lies_among_its_threads_keys(redis_url: str, store: Payloads) -> None:
    thread = new_thread_id()
    ref = await store.put(thread, DATA)
    client = connect(redis_url, timeout_seconds=5, max_connections=2)
    there = await client.exists(ThreadKeys(thread).blob(ref.name))
    await client.aclose()
    assert bool(there) is (ref.store == "redis")


async def test_a_file_is_its_owners_only_and_no_part_of_one_stays(tmp_path: Path) -> None:
    ref = Ref.of("folder", new_thread_id(), DATA)
    await FolderBlobs(tmp_path / "payloads").put(ref, DATA)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path.name for path in files] == [ref.name]
    assert files[0].stat().st_mode & 0o777 == 0o600


async def test_what_an_interrupted_write_left_is_deleted_with_it(tmp_path: Path) -> None:
    ref = Ref.of("folder", new_thread_id(), DATA)
    part = tmp_path / f"{ref.path}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(DATA[:10])
    await FolderBlobs(tmp_path).delete(ref)
    assert not part.exists()


async def test_a_folder_that_takes_no_file_is_a_store_that_is_away(tmp_path: Path) -> None:
    (tmp_path / "payloads").write_text("a file where the folder should be")
    with pytest.raises(StoreAway):
        await FolderBlobs(tmp_path / "payloads").put(Ref.of("folder", new_thread_id(), DATA), DATA)


async def test_an_s3_that_cannot_be_reached_is_away_and_one_without_the_bucket_is_an_error_to_mend(
    bucket: str,
) -> None:
    ref = Ref.of("s3", new_thread_id(), DATA)
    nobody, wrong = (
        S3Blobs(BUCKET, prefix="", endpoint=f"http://127.0.0.1:{free_port()}"),
        S3Blobs("there-is-no-such-bucket", prefix="p", endpoint=bucket),
    )
    with pytest.raises(StoreAway):
        await nobody.put(ref, DATA)
    with pytest.raises(AppError, match="NoSuchBucket") as caught:
        await wrong.put(ref, DATA)
    assert caught.value.code is ErrorCode.INVALID_CONFIG
    for store in (nobody, wrong):
        await store.close()
