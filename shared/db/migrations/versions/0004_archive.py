"""The archive: threads, runs, steps, events, and what evicted threads come back with."""

import sqlalchemy as sa
from alembic import op

from shared.db.types import Json, UtcTime

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    _create_threads()
    _create_runs()
    _create_steps()
    _create_events()
    _create_thread_names()
    _create_thread_messages()
    _create_thread_blobs()


def _create_threads() -> None:
    op.create_table(
        "threads",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("workspace", sa.String(64), nullable=False),
        sa.Column("project", sa.String(200), nullable=True),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("created_at", UtcTime, nullable=False),
        sa.Column("record", sa.Text, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("last_ms", sa.BigInteger, nullable=False),
        sa.Column("last_n", sa.BigInteger, nullable=False),
        sa.Column("purged_ms", sa.BigInteger, nullable=False),
        sa.Column("purged_n", sa.BigInteger, nullable=False),
        sa.Column("snapshots", sa.Text, nullable=False),
        sa.Column("deleted_at", UtcTime, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_threads"),
    )
    op.create_index("ix_threads_deleted_at", "threads", ["deleted_at"])
    op.create_index("ix_threads_workspace_id", "threads", ["workspace", "id"])


def _create_runs() -> None:
    op.create_table(
        "runs",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("thread_id", sa.String(64), nullable=False),
        sa.Column("workspace", sa.String(64), nullable=False),
        sa.Column("project", sa.String(200), nullable=True),
        sa.Column("runnable_type", sa.String(20), nullable=False),
        sa.Column("runnable_id", sa.String(200), nullable=True),
        sa.Column("task_id", sa.String(200), nullable=True),
        sa.Column("user_uuid", sa.String(200), nullable=True),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("model", sa.String(200), nullable=True),
        sa.Column("input_tokens", sa.BigInteger, nullable=False),
        sa.Column("output_tokens", sa.BigInteger, nullable=False),
        sa.Column("cost", sa.Float, nullable=True),
        sa.Column("labels", Json, nullable=False),
        sa.Column("created_at", UtcTime, nullable=False),
        sa.Column("ended_at", UtcTime, nullable=True),
        sa.Column("record", sa.Text, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("steps_done", sa.Integer, nullable=False),
        sa.Column("deleted_at", UtcTime, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_runs"),
        sa.ForeignKeyConstraint(["thread_id"], ["threads.id"], name="fk_runs_thread_id", ondelete="CASCADE"),
    )
    op.create_index("ix_runs_deleted_at", "runs", ["deleted_at"])
    op.create_index("ix_runs_ended_at", "runs", ["ended_at"])
    op.create_index("ix_runs_thread_id", "runs", ["thread_id", "created_at", "id"])
    op.create_index("ix_runs_workspace_created_at", "runs", ["workspace", "created_at", "id"])
    op.create_index(
        "ix_runs_workspace_runnable", "runs", ["workspace", "runnable_type", "runnable_id", "created_at", "id"]
    )
    for name in ("project", "status", "task_id", "user_uuid"):
        op.create_index(f"ix_runs_workspace_{name}", "runs", ["workspace", name, "created_at", "id"])


def _create_steps() -> None:
    op.create_table(
        "steps",
        sa.Column("run_id", sa.String(64), nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("entry", sa.Text, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "key", name="pk_steps"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_steps_run_id", ondelete="CASCADE"),
    )
    op.create_index("ix_steps_run_id_number", "steps", ["run_id", "number"])


def _create_events() -> None:
    op.create_table(
        "events",
        sa.Column("thread_id", sa.String(64), nullable=False),
        sa.Column("ms", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("n", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("run_id", sa.String(64), nullable=False),
        sa.Column("type", sa.String(64), nullable=False),
        sa.Column("event", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("thread_id", "ms", "n", name="pk_events"),
        sa.ForeignKeyConstraint(["thread_id"], ["threads.id"], name="fk_events_thread_id", ondelete="CASCADE"),
    )
    op.create_index("ix_events_ms", "events", ["ms"])
    op.create_index("ix_events_run_id", "events", ["run_id", "ms", "n"])


def _create_thread_names() -> None:
    op.create_table(
        "thread_names",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("thread_id", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_thread_names"),
    )
    op.create_index("ix_thread_names_thread_id", "thread_names", ["thread_id"])


def _create_thread_messages() -> None:
    op.create_table(
        "thread_messages",
        sa.Column("thread_id", sa.String(64), nullable=False),
        sa.Column("place", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("thread_id", "place", name="pk_thread_messages"),
        sa.ForeignKeyConstraint(["thread_id"], ["threads.id"], name="fk_thread_messages_thread_id", ondelete="CASCADE"),
    )


def _create_thread_blobs() -> None:
    op.create_table(
        "thread_blobs",
        sa.Column("thread_id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("thread_id", "name", name="pk_thread_blobs"),
        sa.ForeignKeyConstraint(["thread_id"], ["threads.id"], name="fk_thread_blobs_thread_id", ondelete="CASCADE"),
    )


def downgrade() -> None:
    for table in ("thread_blobs", "thread_messages", "thread_names", "events", "steps", "runs", "threads"):
        op.drop_table(table)
