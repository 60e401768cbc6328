"""Agents as workspaces have configured them, the contexts that they keep, and the messages that they are sent."""

from sqlalchemy import (
    CheckConstraint,
    Column,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from shared.db.tables.base import ID, NAME, changes, in_project, metadata, of_workspace
from shared.db.types import Json, UtcTime


def of_agent() -> list[Column[str] | ForeignKeyConstraint]:
    """The agent of the same workspace that a row belongs to, and goes with."""
    return [
        Column("agent", ID, nullable=False),
        ForeignKeyConstraint(["workspace", "agent"], ["agents.workspace", "agents.id"], ondelete="CASCADE"),
    ]


agents = Table(
    "agents",
    metadata,
    Column("id", ID, primary_key=True),
    *of_workspace(),
    *in_project(),
    Column("definition", NAME, nullable=False),
    Column("name", NAME, nullable=False),
    Column("description", Text, nullable=False, default=""),
    Column("status", String(20), nullable=False),
    # Of these, null is the definition's.
    Column("model", NAME, nullable=True),
    Column("prompt", Text, nullable=True),
    Column("temperature", Float, nullable=True),
    Column("tools", Json, nullable=True),
    Column("limits", Json, nullable=False),
    Column("sandbox", Json, nullable=False),
    Column("knowledge", Json, nullable=False),
    Column("storage", Json, nullable=False),
    Column("metadata", Json, nullable=False),
    # Its own, beside those of its definition and of the settings.
    Column("permissions", Json, nullable=True),
    Column("mcp_servers", Json, nullable=True),
    # The thread of the runs that call its definition's hooks, the last of them, and what that is to call while it is
    # not sure that it was submitted.
    Column("hook_thread", ID, nullable=True),
    Column("hook_run", String(128), nullable=True),
    Column("hooks", Json, nullable=True),
    *changes(),
    UniqueConstraint("workspace", "id"),
    CheckConstraint("status IN ('inactive', 'active', 'shutdown')", name="status"),
    CheckConstraint("name <> ''", name="name"),
    CheckConstraint("version >= 1", name="version"),
    CheckConstraint("(hook_run IS NULL) OR (hook_thread IS NOT NULL)", name="hook"),
    Index("ix_agents_newest", "workspace", "created_at", "id"),
)

contexts = Table(
    "contexts",
    metadata,
    Column("id", ID, primary_key=True),
    *of_workspace(),
    *of_agent(),
    Column("name", NAME, nullable=False),
    *changes(),
    UniqueConstraint("workspace", "id"),
    UniqueConstraint("workspace", "agent", "name"),
    CheckConstraint("version >= 1", name="version"),
)

context_versions = Table(
    "context_versions",
    metadata,
    Column("context", ID, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    *of_workspace(),
    Column("data", Json, nullable=False),
    Column("note", Text, nullable=False, default=""),
    # The version that it is equal to, of one that took an older one up again.
    Column("restored", Integer, nullable=True),
    Column("created_at", UtcTime, nullable=False),
    Column("created_by", ID, nullable=True),
    # The same for a request that is sent again.
    Column("request", ID, nullable=False),
    UniqueConstraint("context", "request"),
    ForeignKeyConstraint(["workspace", "context"], ["contexts.workspace", "contexts.id"], ondelete="CASCADE"),
    CheckConstraint("number >= 1", name="number"),
    CheckConstraint("restored < number", name="restored"),
)

agent_messages = Table(
    "agent_messages",
    metadata,
    Column("id", ID, primary_key=True),
    *of_workspace(),
    *of_agent(),
    Column("role", String(20), nullable=False),
    Column("sender", NAME, nullable=True),
    Column("content", Text, nullable=False),
    Column("data", Json, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    # Until when it may be acknowledged.
    Column("ack_until", UtcTime, nullable=False),
    Column("acknowledged_at", UtcTime, nullable=True),
    CheckConstraint("role IN ('user', 'agent', 'system')", name="role"),
    CheckConstraint("acknowledged_at <= ack_until", name="ack"),
    Index("ix_agent_messages_newest", "workspace", "agent", "created_at", "id"),
)
