"""Every Redis key name, in one place. The braces are Redis Cluster's hash tag: what shares a tag shares a slot."""

from dataclasses import dataclass
from functools import cached_property
from urllib.parse import quote

from shared.ids import SHARDS, shard_of, shard_tags, slot_of, thread_of
from shared.tenant import Tenant

WORKERS = "workers"
TOOLS = "tools"
"""STRING: what the workers told of their tools, as JSON (shared/workers/tools.py)."""
CATALOGUE = "catalogue"
"""STRING: what they told of all else that they know (shared/workers/catalogue.py)."""
INSTALL = "install"
"""STRING: this Redis's name, on all that is made for its threads (shared/install.py)."""


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
    def rings(self) -> str:
        return rings(shard_of(self.thread_id))

    @cached_property
    def timers(self) -> str:
        return timers(shard_of(self.thread_id))

    @cached_property
    def dirty(self) -> str:
        return dirty(shard_of(self.thread_id))

    @cached_property
    def idle(self) -> str:
        return idle(shard_of(self.thread_id))

    def run(self, run_id: str) -> str:
        return f"{self.prefix}:run:{run_id}"

    def journal(self, run_id: str) -> str:
        return f"{self.prefix}:run:{run_id}:journal"

    def of_ending(self, run_id: str) -> list[str]:
        """The keys that a run's end or its way back to pending may change, in the order of the scripts."""
        return [
            *(self.run(run_id), self.metadata, self.stream, self.queue, self.live, self.rings, self.timers),
            *(self.messages, self.journal(run_id), self.waits(run_id), self.inbox(run_id), self.dirty),
        ]

    def of_run(self, run_id: str) -> list[str]:
        """All that is the run's own; its record first."""
        own = (self.journal, self.steps, self.waits, self.inbox)
        return [self.run(run_id), *(name(run_id) for name in own)]

    def waits(self, run_id: str) -> str:
        """HASH step key -> the kind of wait, of the run's open waits."""
        return f"{self.prefix}:run:{run_id}:waits"

    def steps(self, run_id: str) -> str:
        """ZSET of the run's step keys by the steps' numbers: a part of the journal can be found without the rest."""
        return f"{self.prefix}:run:{run_id}:steps"

    def copy(self, name: str) -> str:
        """As the journal, or with `:steps` as its index: of a run that is not submitted yet."""
        return f"{self.prefix}:copy:{name}"

    @property
    def snapshots(self) -> str:
        """LIST of the snapshots of its sandbox's files, as JSON, oldest first."""
        return f"{self.prefix}:snapshots"

    def blob(self, name: str) -> str:
        """STRING: a large result (shared/payloads)."""
        return f"{self.prefix}:blob:{name}"

    def gone(self, member: str) -> str:
        """STRING, for a minute after SQL has forgotten that deleted run, or the thread: who read it before is late."""
        return f"gone:{{{self.thread_id}}}:{member}"

    def inbox(self, run_id: str) -> str:
        """LIST of messages that were put into the run while it went on."""
        return f"{self.prefix}:run:{run_id}:inbox"


def thread_keys_of(run_id: str) -> ThreadKeys:
    return ThreadKeys(thread_of(run_id))


def live(shard: int) -> str:
    """HASH run id -> the worker that runs it."""
    return f"live:{{{shard_tags()[shard]}}}"


def rings(shard: int) -> str:
    """ZSET of pending runs by when (milliseconds) the queue is to be told of them again."""
    return f"rings:{{{shard_tags()[shard]}}}"


def dirty(shard: int) -> str:
    """HASH of what SQL does not have yet: run id, or thread id -> its `seq`; `deleted` for what is to go from there."""
    return f"dirty:{{{shard_tags()[shard]}}}"


def idle(shard: int) -> str:
    """ZSET of threads in which nothing is under way and that SQL has whole, by since when (milliseconds)."""
    return f"idle:{{{shard_tags()[shard]}}}"


def timers(shard: int) -> str:
    """ZSET of what is to be done at a time (milliseconds).

    `wake|RUN|STEP KEY`: the wait's time is up. `clean|RUN|STEP KEY`: an answered wait leaves no trace in other slots.
    `tell|RUN`: an ended child's parent gets its result. `drop|RUN|STEP KEY`: an ended parent's child is canceled.
    `blob|THREAD|STORE/NAME`: a blob that no transition has named yet. `gone|THREAD|STORE/NAME`: one that nobody can
    name any more, and that is to be deleted.
    """
    return f"timers:{{{shard_tags()[shard]}}}"


@dataclass(frozen=True)
class TopicKeys:
    """The keys of one topic of the event bus, on a shard's slot: its sweeper finds what is to be delivered."""

    topic: str

    @property
    def events(self) -> str:
        """STREAM of the topic's events."""
        return f"events:{self._tag}:{self.topic}"

    @property
    def waiters(self) -> str:
        """ZSET `RUN/STEP KEY` by the last event that does not count for it."""
        return f"waiters:{self._tag}:{self.topic}"

    @property
    def deliveries(self) -> str:
        return deliveries(topic_shard(self.topic))

    def event_id(self, event_key: str) -> str:
        """STRING: the id of the event that was published under a key of its own."""
        return f"event-id:{self._tag}:{self.topic}:{event_key}"

    @property
    def _tag(self) -> str:
        return f"{{{shard_tags()[topic_shard(self.topic)]}}}"


def topic_shard(topic: str) -> int:
    return slot_of(topic) % SHARDS


def deliveries(shard: int) -> str:
    """ZSET of topics with an event that somebody still waits for, by when they are to be delivered (milliseconds)."""
    return f"deliveries:{{{shard_tags()[shard]}}}"


def approvals(tenant: Tenant) -> str:
    """ZSET of the step ids that a tenant sees and that wait for a human, by when they began to (ms)."""
    return f"approvals:{{{tenant}}}"


def slots(workspace: str) -> str:
    """ZSET of the runs that have one of the workspace's slots, by when they got or confirmed it (milliseconds)."""
    return f"slots:{{{workspace}}}"


def parked(workspace: str) -> str:
    """ZSET of the runs that wait for one of the workspace's slots, by rank."""
    return f"parked:{{{workspace}}}"


def slots_checked(workspace: str) -> str:
    """STRING, for as long as nobody needs to look for stale slots."""
    return f"slots-checked:{{{workspace}}}"


def threads(tenant: Tenant) -> str:
    """ZSET of the ids of the threads that a tenant sees, all with score 0: ids sort by time."""
    return f"threads:{{{tenant}}}"


def current_runs(workspace: str) -> str:
    """ZSET of a workspace's runs that have not ended, or that SQL does not have yet, by when their ids were made."""
    return f"current-runs:{{{workspace}}}"


def worker(name: str) -> str:
    """HASH: a worker's card, what it says of itself. On the slot of `workers`."""
    return f"worker:{{{WORKERS}}}:{name}"


def idempotency(tenant: str, key: str) -> str:
    return f"idem:{{{tenant}:{key}}}"


def breaker(deployment: str) -> str:
    """HASH: the circuit breaker of a model at an address (workflow/llm/breaker/lib.lua)."""
    return f"breaker:{{{deployment}}}"


def streams(workspace: str, key_id: str) -> str:
    """ZSET of the streams that a key holds open, by the end of their leases (milliseconds)."""
    return f"streams:{{{workspace}/{key_id}}}"


def response(digest: str) -> str:
    """STRING: a model's answer to a request with this hash."""
    return f"response:{{{digest}}}"


def channel(workspace: str) -> str:
    """STREAM of the agent-level events of a workspace, and the sharded pub/sub channel that tells of new ones."""
    return f"channel:{{{workspace}}}"


def channel_end(workspace: str) -> str:
    """STRING: the id of the last event of a workspace's channel, for longer than the event itself is there."""
    return f"channel:{{{workspace}}}:end"


def flow(tenant: str, flow_uuid: str, flow_input_uuid: str) -> str:
    """STRING: the thread that a legacy stream's name stands for, for some time after its last use. SQL has it too."""
    return f"stream:{{{tenant}}}:{quote(flow_uuid, safe='')}:{quote(flow_input_uuid, safe='')}"


def session(tenant: str, name: str) -> str:
    """STRING: the thread of a client's session. As `flow`."""
    return f"session:{{{tenant}:{name}}}"


def revoked(key_id: str) -> str:
    """STRING: that an API key is revoked, for longer than any gateway remembers the key; or that a session was signed
    out, for as long as its cookie would count."""
    return f"revoked:{{{key_id}}}"


def ticket(digest: str) -> str:
    return f"ticket:{{{digest}}}"


def port_link(digest: str) -> str:
    """STRING: the sandbox and port that a link's ticket opens, and their generation."""
    return f"port-link:{{{digest}}}"


def port_links(sandbox: str, port: int) -> str:
    """STRING: the generation of the port's links that are good. Lasts longer than any of them; none is the first."""
    return f"port-links:{{{sandbox}:{port}}}"


def public_port(sandbox: str, port: int) -> str:
    """STRING, for as long as the port needs no ticket."""
    return f"public-port:{{{sandbox}:{port}}}"


def budget(workspace: str, *name: str) -> str:
    """HASH: a budget (`run`, RUN; `thread`, THREAD; `key`, KEY; `workspace`), or what a run's calls hold (`held`, RUN).

    All of a workspace share a slot: one script sees every budget that a call counts in.
    """
    return ":".join((f"{{budget:{workspace}}}", *name))
