"""Ids that sort by the time they were made, and the shard that a thread lives on.

A thread's keys and its shard's index keys must share a Redis Cluster slot, so that one script can change both.
There are 256 shards, each on one of the slots 0, 64, 128, ...; a thread id is minted until its slot is one of them
(64 tries on average, some 20 microseconds, because a CRC goes on from its prefix's).
"""

import hashlib
import itertools
import re
import secrets
import time
from binascii import crc_hqx
from functools import cache

SHARDS = 256
SLOTS = 16384  # of a Redis Cluster: CRC16 of the tag, modulo this
SLOTS_PER_SHARD = SLOTS // SHARDS

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u
TIME_CHARS = 10  # 50 bits of milliseconds since 1970

THREAD_ID = re.compile(rf"[{ALPHABET}]{{26}}")
RUN_ID = re.compile(rf"([{ALPHABET}]{{26}})\.([{ALPHABET}]{{15}})")
ROW_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""Of a row in SQL: ours, and those that are named by people, such as `default`."""
STREAM_ID = re.compile(r"[0-9]{1,15}-[0-9]{1,15}")


def new_id(random_chars: int = 16) -> str:
    """A time-ordered id: ten characters of milliseconds, then `random_chars` of five random bits each."""
    return _base32(time.time_ns() // 1_000_000, TIME_CHARS) + _base32(secrets.randbits(5 * random_chars), random_chars)


def new_thread_id() -> str:
    return _on_a_shard(new_id(random_chars=13), secrets.randbits(15))


def child_run_id(parent_run_id: str, step_key: str) -> str:
    """The run, in a thread of its own, that a step of another run calls: the same whoever asks."""
    digest = hashlib.sha256(f"{parent_run_id}/{step_key}".encode()).digest()
    time_chars = thread_of(parent_run_id)[:TIME_CHARS]
    thread_id = _on_a_shard(time_chars + _base32(int.from_bytes(digest[:9]), 13), int.from_bytes(digest[9:11]) >> 1)
    return f"{thread_id}.{time_chars}{_base32(int.from_bytes(digest[11:15]), 5)}"


def _on_a_shard(prefix: str, start: int) -> str:
    """The prefix with the first three characters from `start` on that put the id on a shard's slot."""
    crc = crc_hqx(prefix.encode(), 0)
    for number in range(start, start + 2**15):
        suffix = ALPHABET[number >> 10 & 31] + ALPHABET[number >> 5 & 31] + ALPHABET[number & 31]
        if crc_hqx(suffix.encode(), crc) % SLOTS_PER_SHARD == 0:
            return prefix + suffix
    raise AssertionError("unreachable: 15 free bits reach every remainder modulo 64")


def minted_ms(run_or_thread_id: str) -> int:
    """When the id was made, by the clock of its maker; a child's: when its parent's thread was."""
    time_chars = run_or_thread_id.rpartition(".")[2][:TIME_CHARS]
    return sum(ALPHABET.index(char) << 5 * place for place, char in enumerate(reversed(time_chars)))


def new_run_id(thread_id: str) -> str:
    return f"{thread_id}.{new_id(random_chars=5)}"


def is_thread_id(text: str) -> bool:
    return THREAD_ID.fullmatch(text) is not None and slot_of(text) % SLOTS_PER_SHARD == 0


def is_run_id(text: str) -> bool:
    match = RUN_ID.fullmatch(text)
    return match is not None and is_thread_id(match[1])


def is_row_id(text: str) -> bool:
    return ROW_ID.fullmatch(text) is not None


def thread_of(run_or_step_id: str) -> str:
    return run_or_step_id.partition(".")[0]


def slot_of(tag: str) -> int:
    return crc_hqx(tag.encode(), 0) % SLOTS


def shard_of(thread_id: str) -> int:
    return slot_of(thread_id) // SLOTS_PER_SHARD


@cache
def shard_tags() -> tuple[str, ...]:
    """For each shard, the first of `s0`, `s1`, ... whose slot is the shard's."""
    tags: dict[int, str] = {}
    for k in itertools.count():
        tag = f"s{k}"
        if slot_of(tag) % SLOTS_PER_SHARD == 0:
            tags.setdefault(shard_of(tag), tag)
            if len(tags) == SHARDS:
                return tuple(tags[shard] for shard in range(SHARDS))
    raise AssertionError("unreachable: itertools.count does not end")


def stream_position(stream_id: str) -> tuple[int, int]:
    """A stream id as numbers, to compare by: `1732150000000-2` -> (1732150000000, 2)."""
    ms, _, sequence = stream_id.partition("-")
    return int(ms), int(sequence)


def _base32(number: int, length: int) -> str:
    return "".join(ALPHABET[number >> 5 * place & 31] for place in reversed(range(length)))
