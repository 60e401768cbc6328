"""Workspaces, projects, keys, the audit log."""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

from shared.db.types import Json, UtcTime

revision = "0001"
down_revision = None


def upgrade() -> None:
    _create_workspaces()
    _create_projects()
    _create_keys()
    _create_audit()


def _create_workspaces() -> None:
    workspaces = op.create_table(
        "workspaces",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("slug", sa.String(64), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("metadata", Json, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_at", UtcTime, nullable=False),
        sa.Column("updated_at", UtcTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_workspaces"),
        sa.UniqueConstraint("slug", name="uq_workspaces_slug"),
        sa.CheckConstraint("slug <> ''", name="ck_workspaces_slug"),
    )
    now = datetime.now(UTC)
    first = {"id": "default", "slug": "default", "name": "Default", "metadata": {}, "version": 1}
    op.bulk_insert(workspaces, [{**first, "created_at": now, "updated_at": now}])


def _create_projects() -> None:
    op.create_table(
        "projects",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("workspace", sa.String(64), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("metadata", Json, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_at", UtcTime, nullable=False),
        sa.Column("updated_at", UtcTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_projects"),
        sa.ForeignKeyConstraint(["workspace"], ["workspaces.id"], name="fk_projects_workspace", ondelete="CASCADE"),
        sa.UniqueConstraint("workspace", "id", name="uq_projects_workspace_id"),
        sa.UniqueConstraint("workspace", "name", name="uq_projects_workspace_name"),
    )
    op.create_index("ix_projects_workspace", "projects", ["workspace"])


def _create_keys() -> None:
    op.create_table(
        "keys",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("workspace", sa.String(64), nullable=False),
        sa.Column("project", sa.String(64), nullable=True),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("prefix", sa.String(32), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("scopes", Json, nullable=False),
        sa.Column("created_by", sa.String(64), nullable=True),
        sa.Column("created_at", UtcTime, nullable=False),
        sa.Column("expires_at", UtcTime, nullable=True),
        sa.Column("last_used_at", UtcTime, nullable=True),
        sa.Column("revoked_at", UtcTime, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_keys"),
        sa.ForeignKeyConstraint(["workspace"], ["workspaces.id"], name="fk_keys_workspace", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["workspace", "project"], ["projects.workspace", "projects.id"], name="fk_keys_workspace_project"
        ),
        sa.UniqueConstraint("digest", name="uq_keys_digest"),
    )
    op.create_index("ix_keys_workspace", "keys", ["workspace"])


def _create_audit() -> None:
    op.create_table(
        "audit",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("workspace", sa.String(64), nullable=False),
        sa.Column("at", UtcTime, nullable=False),
        sa.Column("actor", sa.String(64), nullable=True),
        sa.Column("user_uuid", sa.String(200), nullable=True),
        sa.Column("action", sa.String(100), nullable=False),
        sa.Column("resource_type", sa.String(50), nullable=True),
        sa.Column("resource_id", sa.String(200), nullable=True),
        sa.Column("outcome", sa.String(20), nullable=False),
        sa.Column("request_id", sa.String(100), nullable=True),
        sa.Column("address", sa.String(64), nullable=True),
        sa.Column("detail", Json, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
        sa.CheckConstraint("outcome IN ('done', 'refused', 'failed')", name="ck_audit_outcome"),
    )
    op.create_index("ix_audit_at", "audit", ["at"])
    op.create_index("ix_audit_workspace_at", "audit", ["workspace", "at", "id"])


def downgrade() -> None:
    for table in ("audit", "keys", "projects", "workspaces"):
        op.drop_table(table)
