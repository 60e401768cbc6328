"""Agents, contexts and their versions, messages."""

import sqlalchemy as sa
from alembic import op

from shared.db.types import Json, UtcTime

revision = "0002"
down_revision = "0001"

FINAL_SQLITE = """
CREATE TRIGGER context_versions_are_final BEFORE UPDATE ON context_versions
BEGIN SELECT RAISE(ABORT, 'a version of a context is final'); END
"""
FINAL_POSTGRES = (
    """
CREATE FUNCTION refuse_change_of_context_version() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'a version of a context is final' USING ERRCODE = 'integrity_constraint_violation'; END $$
""",
    """
CREATE TRIGGER context_versions_are_final BEFORE UPDATE ON context_versions
FOR EACH ROW EXECUTE FUNCTION refuse_change_of_context_version()
""",
)


def upgrade() -> None:
    op.create_table(
        "agents",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("workspace", sa.String(64), nullable=False),
        sa.Column("project", sa.String(64), nullable=True),
        sa.Column("definition", sa.String(200), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("model", sa.String(200), nullable=True),
        sa.Column("prompt", sa.Text, nullable=True),
        sa.Column("temperature", sa.Float, nullable=True),
        sa.Column("tools", Json, nullable=True),
        *(sa.Column(name, Json, nullable=False) for name in ("limits", "sandbox", "knowledge", "storage", "metadata")),
        sa.Column("hook_thread", sa.String(64), nullable=True),
        sa.Column("hook_run", sa.String(128), nullable=True),
        sa.Column("hooks", Json, nullable=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_at", UtcTime, nullable=False),
        sa.Column("updated_at", UtcTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_agents"),
        sa.ForeignKeyConstraint(["workspace"], ["workspaces.id"], name="fk_agents_workspace", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["workspace", "project"], ["projects.workspace", "projects.id"], name="fk_agents_workspace_project"
        ),
        sa.UniqueConstraint("workspace", "id", name="uq_agents_workspace_id"),
        sa.CheckConstraint("status IN ('inactive', 'active', 'shutdown')", name="ck_agents_status"),
        sa.CheckConstraint("name <> ''", name="ck_agents_name"),
        sa.CheckConstraint("version >= 1", name="ck_agents_version"),
        sa.CheckConstraint("(hook_run IS NULL) OR (hook_thread IS NOT NULL)", name="ck_agents_hook"),
    )
    op.create_index("ix_agents_workspace", "agents", ["workspace"])
    op.create_index("ix_agents_newest", "agents", ["workspace", "created_at", "id"])
    _create_contexts()
    _create_messages()


def _create_contexts() -> None:
    op.create_table(
        "contexts",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("workspace", sa.String(64), nullable=False),
        sa.Column("agent", sa.String(64), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_at", UtcTime, nullable=False),
        sa.Column("updated_at", UtcTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_contexts"),
        *_of_agent("contexts"),
        sa.UniqueConstraint("workspace", "id", name="uq_contexts_workspace_id"),
        sa.UniqueConstraint("workspace", "agent", "name", name="uq_contexts_workspace_agent_name"),
        sa.CheckConstraint("version >= 1", name="ck_contexts_version"),
    )
    op.create_index("ix_contexts_workspace", "contexts", ["workspace"])
    op.create_table(
        "context_versions",
        sa.Column("context", sa.String(64), nullable=False),
        sa.Column("number", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("workspace", sa.String(64), nullable=False),
        sa.Column("data", Json, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("restored", sa.Integer, nullable=True),
        sa.Column("created_at", UtcTime, nullable=False),
        sa.Column("created_by", sa.String(64), nullable=True),
        sa.Column("request", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("context", "number", name="pk_context_versions"),
        sa.UniqueConstraint("context", "request", name="uq_context_versions_context_request"),
        sa.ForeignKeyConstraint(
            ["workspace"], ["workspaces.id"], name="fk_context_versions_workspace", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["workspace", "context"],
            ["contexts.workspace", "contexts.id"],
            name="fk_context_versions_workspace_context",
            ondelete="CASCADE",
        ),
        sa.CheckConstraint("number >= 1", name="ck_context_versions_number"),
        sa.CheckConstraint("restored < number", name="ck_context_versions_restored"),
    )
    op.create_index("ix_context_versions_workspace", "context_versions", ["workspace"])
    postgres = op.get_bind().dialect.name == "postgresql"
    for statement in FINAL_POSTGRES if postgres else (FINAL_SQLITE,):
        op.execute(statement)


def _create_messages() -> None:
    op.create_table(
        "agent_messages",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("workspace", sa.String(64), nullable=False),
        sa.Column("agent", sa.String(64), nullable=False),
        sa.Column("role", sa.String(20), nullable=False),
        sa.Column("sender", sa.String(200), nullable=True),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("data", Json, nullable=False),
        sa.Column("created_at", UtcTime, nullable=False),
        sa.Column("ack_until", UtcTime, nullable=False),
        sa.Column("acknowledged_at", UtcTime, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_agent_messages"),
        *_of_agent("agent_messages"),
        sa.CheckConstraint("role IN ('user', 'agent', 'system')", name="ck_agent_messages_role"),
        sa.CheckConstraint("acknowledged_at <= ack_until", name="ck_agent_messages_ack"),
    )
    op.create_index("ix_agent_messages_workspace", "agent_messages", ["workspace"])
    op.create_index("ix_agent_messages_newest", "agent_messages", ["workspace", "agent", "created_at", "id"])


def _of_agent(table: str) -> list[sa.ForeignKeyConstraint]:
    return [
        sa.ForeignKeyConstraint(["workspace"], ["workspaces.id"], name=f"fk_{table}_workspace", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["workspace", "agent"],
            ["agents.workspace", "agents.id"],
            name=f"fk_{table}_workspace_agent",
            ondelete="CASCADE",
        ),
    ]


def downgrade() -> None:
    for table in ("agent_messages", "context_versions", "contexts", "agents"):
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION refuse_change_of_context_version")
