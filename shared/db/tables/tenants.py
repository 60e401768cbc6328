"""Who uses the installation: workspaces, their projects and keys, and what was done."""

from sqlalchemy import CheckConstraint, Column, Index, String, Table, Text, UniqueConstraint

from shared.db.tables.base import ID, NAME, changes, in_project, metadata, of_workspace
from shared.db.types import Json, UtcTime

workspaces = Table(
    "workspaces",
    metadata,
    Column("id", ID, primary_key=True),
    Column("slug", String(64), nullable=False, unique=True),
    Column("name", NAME, nullable=False),
    Column("metadata", Json, nullable=False),
    *changes(),
    CheckConstraint("slug <> ''", name="slug"),
)

projects = Table(
    "projects",
    metadata,
    Column("id", ID, primary_key=True),
    *of_workspace(),
    Column("name", NAME, nullable=False),
    Column("description", Text, nullable=False, default=""),
    Column("metadata", Json, nullable=False),
    *changes(),
    UniqueConstraint("workspace", "id"),
    UniqueConstraint("workspace", "name"),
)

keys = Table(
    "keys",
    metadata,
    Column("id", ID, primary_key=True),
    *of_workspace(),
    *in_project(),
    Column("name", NAME, nullable=False),
    Column("prefix", String(32), nullable=False),
    Column("digest", String(64), nullable=False, unique=True),
    Column("scopes", Json, nullable=False),
    Column("created_by", ID, nullable=True),
    Column("created_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=True),
    Column("last_used_at", UtcTime, nullable=True),
    Column("revoked_at", UtcTime, nullable=True),
)

audit = Table(
    "audit",
    metadata,
    Column("id", ID, primary_key=True),
    # No foreign key: what was done stays known when its workspace is gone.
    Column("workspace", ID, nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("actor", ID, nullable=True),
    Column("user_uuid", String(200), nullable=True),
    Column("action", String(100), nullable=False),
    Column("resource_type", String(50), nullable=True),
    Column("resource_id", String(200), nullable=True),
    Column("outcome", String(20), nullable=False),
    Column("request_id", String(100), nullable=True),
    Column("address", String(64), nullable=True),
    Column("detail", Json, nullable=True),
    CheckConstraint("outcome IN ('done', 'refused', 'failed')", name="outcome"),
    Index("ix_audit_workspace_at", "workspace", "at", "id"),
    Index("ix_audit_at", "at"),
)
