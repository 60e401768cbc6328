"""Teams, tools, workflows and their versions, tasks."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from shared.db.types import Json, UtcTime

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    _create_teams()
    _create(
        "tools",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("type", sa.String(20), nullable=False),
        *_json("config", "input_schema"),
        sa.Column("output_schema", Json, nullable=True),
        sa.Column("effect", sa.String(20), nullable=False),
        sa.Column("timeout_seconds", sa.Integer, nullable=True),
        sa.UniqueConstraint("workspace", "name", name="uq_tools_workspace_name"),
        sa.CheckConstraint("type IN ('http', 'function', 'builtin', 'mcp')", name="ck_tools_type"),
        sa.CheckConstraint("effect IN ('repeatable', 'idempotent', 'none')", name="ck_tools_effect"),
    )
    _create_workflows()
    _create(
        "tasks",
        *_name("tasks"),
        sa.Column("runnable_type", sa.String(20), nullable=False),
        sa.Column("runnable_id", sa.String(200), nullable=True),
        sa.Column("input", Json, nullable=True),
        *_json("parameters"),
        sa.Column("last_run", sa.String(128), nullable=True),
        sa.CheckConstraint("runnable_type IN ('agent', 'team', 'workflow', 'function')", name="ck_tasks_runnable_type"),
    )


def downgrade() -> None:
    for table in ("tasks", "workflow_versions", "workflows", "tools", "team_members", "teams"):
        op.drop_table(table)


def _create_teams() -> None:
    _create(
        "teams",
        *_name("teams"),
        sa.Column("mode", sa.String(20), nullable=False),
        sa.Column("leader", sa.String(64), nullable=False),
        sa.Column("instructions", sa.Text, nullable=False),
        *_json("limits", "knowledge", "storage"),
        sa.ForeignKeyConstraint(
            ["workspace", "leader"], ["agents.workspace", "agents.id"], name="fk_teams_workspace_leader"
        ),
        sa.CheckConstraint("mode IN ('coordinate', 'route', 'broadcast')", name="ck_teams_mode"),
    )
    op.create_table(
        "team_members",
        *_of_workspace("team_members"),
        sa.Column("team", sa.String(64), nullable=False),
        sa.Column("agent", sa.String(64), nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("team", "agent", name="pk_team_members"),
        *_belongs_to("team_members", "team"),
        sa.ForeignKeyConstraint(
            ["workspace", "agent"], ["agents.workspace", "agents.id"], name="fk_team_members_workspace_agent"
        ),
    )
    op.create_index("ix_team_members_workspace", "team_members", ["workspace"])


def _create_workflows() -> None:
    _create(
        "workflows",
        *_name("workflows"),
        *_json("graph"),
        sa.Column("graph_version", sa.Integer, nullable=False),
        sa.CheckConstraint("graph_version >= 1", name="ck_workflows_graph_version"),
    )
    op.create_table(
        "workflow_versions",
        *_of_workspace("workflow_versions"),
        sa.Column("workflow", sa.String(64), nullable=False),
        sa.Column("number", sa.Integer, nullable=False, autoincrement=False),
        *_json("graph"),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("created_at", UtcTime, nullable=False),
        sa.Column("created_by", sa.String(64), nullable=True),
        sa.PrimaryKeyConstraint("workflow", "number", name="pk_workflow_versions"),
        *_belongs_to("workflow_versions", "workflow"),
        sa.CheckConstraint("number >= 1", name="ck_workflow_versions_number"),
    )
    op.create_index("ix_workflow_versions_workspace", "workflow_versions", ["workspace"])


def _create(table: str, *parts: Any) -> None:
    """A table with what all of the catalogue have."""
    op.create_table(
        table,
        sa.Column("id", sa.String(64), nullable=False),
        *_of_workspace(table),
        sa.Column("project", sa.String(64), nullable=True),
        *_json("metadata"),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_at", UtcTime, nullable=False),
        sa.Column("updated_at", UtcTime, nullable=False),
        *parts,
        sa.PrimaryKeyConstraint("id", name=f"pk_{table}"),
        sa.ForeignKeyConstraint(
            ["workspace", "project"], ["projects.workspace", "projects.id"], name=f"fk_{table}_workspace_project"
        ),
        sa.UniqueConstraint("workspace", "id", name=f"uq_{table}_workspace_id"),
    )
    op.create_index(f"ix_{table}_workspace", table, ["workspace"])
    op.create_index(f"ix_{table}_newest", table, ["workspace", "created_at", "id"])


def _name(table: str) -> list[Any]:
    return [
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.CheckConstraint("name <> ''", name=f"ck_{table}_name"),
    ]


def _json(*names: str) -> list[Any]:
    return [sa.Column(name, Json, nullable=False) for name in names]


def _of_workspace(table: str) -> list[Any]:
    return [
        sa.Column("workspace", sa.String(64), nullable=False),
        sa.ForeignKeyConstraint(["workspace"], ["workspaces.id"], name=f"fk_{table}_workspace", ondelete="CASCADE"),
    ]


def _belongs_to(table: str, owner: str) -> list[Any]:
    return [
        sa.ForeignKeyConstraint(
            ["workspace", owner],
            [f"{owner}s.workspace", f"{owner}s.id"],
            name=f"fk_{table}_workspace_{owner}",
            ondelete="CASCADE",
        )
    ]
