"""What left Redis, or will: threads, runs, steps, events, and what evicted threads come back with.

Rows name their workspace without a foreign key: the archive refuses nothing that Redis accepted. `seq` is that of the
record as it was read; a row never goes back to a lower one. `record` and `entry` are what Redis had, as text: what
is read back is what was written. A deleted thread or run stays as an empty row for a while, so that nobody who read
it before puts it back.
"""

from sqlalchemy import BigInteger, Column, Float, ForeignKeyConstraint, Index, Integer, LargeBinary, String, Table, Text

from shared.db.tables.base import ID, NAME, metadata
from shared.db.types import Json, UtcTime

RUN_ID = String(64)

threads = Table(
    "threads",
    metadata,
    Column("id", ID, primary_key=True),
    Column("workspace", ID, nullable=False),
    Column("project", NAME, nullable=True),
    Column("status", String(20), nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("record", Text, nullable=False),
    Column("seq", BigInteger, nullable=False),
    # The last event, as numbers: with `seq` it says which state of the thread this is.
    Column("last_ms", BigInteger, nullable=False),
    Column("last_n", BigInteger, nullable=False),
    # Retention has removed the events up to this one.
    Column("purged_ms", BigInteger, nullable=False, default=0),
    Column("purged_n", BigInteger, nullable=False, default=0),
    Column("snapshots", Text, nullable=False, default="[]"),
    Column("deleted_at", UtcTime, nullable=True),
    Index("ix_threads_workspace_id", "workspace", "id"),
    Index("ix_threads_deleted_at", "deleted_at"),
)

runs = Table(
    "runs",
    metadata,
    Column("id", RUN_ID, primary_key=True),
    Column("thread_id", ID, nullable=False),
    Column("workspace", ID, nullable=False),
    Column("project", NAME, nullable=True),
    Column("runnable_type", String(20), nullable=False),
    Column("runnable_id", NAME, nullable=True),
    Column("task_id", NAME, nullable=True),
    Column("user_uuid", NAME, nullable=True),
    Column("status", String(20), nullable=False),
    Column("model", NAME, nullable=True),
    Column("input_tokens", BigInteger, nullable=False, default=0),
    Column("output_tokens", BigInteger, nullable=False, default=0),
    Column("cost", Float, nullable=True),
    Column("labels", Json, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("ended_at", UtcTime, nullable=True),
    Column("record", Text, nullable=False),
    Column("seq", BigInteger, nullable=False),
    # All steps up to this number have ended, and are here.
    Column("steps_done", Integer, nullable=False, default=0),
    Column("deleted_at", UtcTime, nullable=True),
    ForeignKeyConstraint(["thread_id"], ["threads.id"], ondelete="CASCADE"),
    Index("ix_runs_workspace_created_at", "workspace", "created_at", "id"),
    Index("ix_runs_workspace_status", "workspace", "status", "created_at", "id"),
    Index("ix_runs_workspace_runnable", "workspace", "runnable_type", "runnable_id", "created_at", "id"),
    Index("ix_runs_thread_id", "thread_id", "created_at", "id"),
    Index("ix_runs_workspace_project", "workspace", "project", "created_at", "id"),
    Index("ix_runs_workspace_task_id", "workspace", "task_id", "created_at", "id"),
    Index("ix_runs_workspace_user_uuid", "workspace", "user_uuid", "created_at", "id"),
    Index("ix_runs_ended_at", "ended_at"),
    Index("ix_runs_deleted_at", "deleted_at"),
)

steps = Table(
    "steps",
    metadata,
    Column("run_id", RUN_ID, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("number", Integer, nullable=False),
    Column("entry", Text, nullable=False),
    Column("seq", BigInteger, nullable=False),
    ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE"),
    Index("ix_steps_run_id_number", "run_id", "number"),
)

events = Table(
    "events",
    metadata,
    Column("thread_id", ID, primary_key=True),
    Column("ms", BigInteger, primary_key=True, autoincrement=False),
    Column("n", BigInteger, primary_key=True, autoincrement=False),
    Column("run_id", RUN_ID, nullable=False),
    Column("type", String(64), nullable=False),
    Column("event", Text, nullable=False),
    ForeignKeyConstraint(["thread_id"], ["threads.id"], ondelete="CASCADE"),
    Index("ix_events_run_id", "run_id", "ms", "n"),
    Index("ix_events_ms", "ms"),
)

# What clients call their threads: hashes (SHA-256) of the tenant and the name. Given before a thread is archived.
names = Table(
    "thread_names",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("thread_id", ID, nullable=False),
    Index("ix_thread_names_thread_id", "thread_id"),
)

messages = Table(
    "thread_messages",
    metadata,
    Column("thread_id", ID, primary_key=True),
    Column("place", Integer, primary_key=True, autoincrement=False),
    Column("message", Text, nullable=False),
    ForeignKeyConstraint(["thread_id"], ["threads.id"], ondelete="CASCADE"),
)

blobs = Table(
    "thread_blobs",
    metadata,
    Column("thread_id", ID, primary_key=True),
    Column("name", String(128), primary_key=True),
    Column("data", LargeBinary, nullable=False),
    ForeignKeyConstraint(["thread_id"], ["threads.id"], ondelete="CASCADE"),
)
