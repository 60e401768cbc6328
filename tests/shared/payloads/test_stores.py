"""Every store keeps the same promises."""

from pathlib import Path

import pytest

from shared.config import PayloadsSettings
from shared.errors import AppError, ErrorCode
from shared.ids import new_thread_id
from shared.keys import ThreadKeys
from shared.payloads.blobs import Lost, Ref, StoreAway
from shared.payloads.folder import FolderBlobs
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
