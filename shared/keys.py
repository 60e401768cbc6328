"""Every Redis key name, in one place. The braces are Redis Cluster's hash tag: what shares a tag shares a slot."""

from dataclasses import dataclass
from functools import cached_property

from shared.ids import shard_of, shard_tags, thread_of

WORKERS = "workers"


@dataclass(frozen=True)
class ThreadKeys:
    """The keys of one thread, and of its shard's indexes, which are on the same slot."""

    thread_id: str

    @cached_property
    def prefix(self) -> str:
        return f"thread:{{{self.thread_id}}}"

    @property
    def channel(self) -> str:
        """Sharded pub/sub channel on which each new stream id is told."""
        return self.prefix

    @property
    def metadata(self) -> str:
        return f"{self.prefix}:metadata"

    @property
    def stream(self) -> str:
        return f"{self.prefix}:stream"

    @property
    def runs(self) -> str:
        return f"{self.prefix}:runs"

    @property
    def queue(self) -> str:
        return f"{self.prefix}:queue"

    @property
    def messages(self) -> str:
        return f"{self.prefix}:messages"

    @cached_property
    def live(self) -> str:
        return live(shard_of(self.thread_id))

    @cached_property
    def timers(self) -> str:
        return timers(shard_of(self.thread_id))

    def run(self, run_id: str) -> str:
        return f"{self.prefix}:run:{run_id}"

    def journal(self, run_id: str) -> str:
        return f"{self.prefix}:run:{run_id}:journal"


def thread_keys_of(run_id: str) -> ThreadKeys:
    return ThreadKeys(thread_of(run_id))


def live(shard: int) -> str:
    """HASH run id -> the worker that runs it."""
    return f"live:{{{shard_tags()[shard]}}}"


def timers(shard: int) -> str:
    """ZSET of what the sweeper must do at a time (milliseconds): `ring|RUN_ID`."""
    return f"timers:{{{shard_tags()[shard]}}}"


def threads(workspace: str) -> str:
    """ZSET of a workspace's thread ids, all with score 0: ids sort by time."""
    return f"threads:{{{workspace}}}"


def worker(name: str) -> str:
    """HASH: a worker's card, what it says of itself. On the slot of `workers`."""
    return f"worker:{{{WORKERS}}}:{name}"


def idempotency(workspace: str, key: str) -> str:
    return f"idem:{{{workspace}:{key}}}"


def breaker(deployment: str) -> str:
    """HASH: the circuit breaker of a model at an address (workflow/llm/breaker_lib.lua)."""
    return f"breaker:{{{deployment}}}"


def ticket(digest: str) -> str:
    return f"ticket:{{{digest}}}"
