"""What is made of agents: teams, tools, workflows with their versions, tasks."""

from sqlalchemy import CheckConstraint, Column, ForeignKeyConstraint, Index, Integer, String, Table, Text
from sqlalchemy import UniqueConstraint as Unique

from shared.db.tables.base import ID, NAME, changes, in_project, metadata, of_workspace
from shared.db.types import Json, UtcTime

teams = Table(
    "teams",
    metadata,
    Column("id", ID, primary_key=True),
    *of_workspace(),
    *in_project(),
    Column("name", NAME, nullable=False),
    Column("description", Text, nullable=False, default=""),
    Column("mode", String(20), nullable=False),
    Column("leader", ID, nullable=False),
    Column("instructions", Text, nullable=False, default=""),
    Column("limits", Json, nullable=False),
    Column("knowledge", Json, nullable=False),
    Column("storage", Json, nullable=False),
    Column("metadata", Json, nullable=False),
    *changes(),
    ForeignKeyConstraint(["workspace", "leader"], ["agents.workspace", "agents.id"]),
    Unique("workspace", "id"),
    CheckConstraint("mode IN ('coordinate', 'route', 'broadcast')", name="mode"),
    CheckConstraint("name <> ''", name="name"),
    Index("ix_teams_newest", "workspace", "created_at", "id"),
)

team_members = Table(
    "team_members",
    metadata,
    *of_workspace(),
    Column("team", ID, primary_key=True),
    Column("agent", ID, primary_key=True),
    Column("position", Integer, nullable=False),
    ForeignKeyConstraint(["workspace", "team"], ["teams.workspace", "teams.id"], ondelete="CASCADE"),
    ForeignKeyConstraint(["workspace", "agent"], ["agents.workspace", "agents.id"]),
)

tools = Table(
    "tools",
    metadata,
    Column("id", ID, primary_key=True),
    *of_workspace(),
    *in_project(),
    Column("name", String(64), nullable=False),
    Column("description", Text, nullable=False),
    Column("type", String(20), nullable=False),
    Column("config", Json, nullable=False),
    Column("input_schema", Json, nullable=False),
    Column("output_schema", Json, nullable=True),
    Column("effect", String(20), nullable=False),
    Column("timeout_seconds", Integer, nullable=True),
    Column("metadata", Json, nullable=False),
    *changes(),
    Unique("workspace", "id"),
    Unique("workspace", "name"),
    CheckConstraint("type IN ('http', 'function', 'builtin', 'mcp')", name="type"),
    CheckConstraint("effect IN ('repeatable', 'idempotent', 'none')", name="effect"),
    Index("ix_tools_newest", "workspace", "created_at", "id"),
)

workflows = Table(
    "workflows",
    metadata,
    Column("id", ID, primary_key=True),
    *of_workspace(),
    *in_project(),
    Column("name", NAME, nullable=False),
    Column("description", Text, nullable=False, default=""),
    # The latest version's, which `graph_version` numbers: renaming makes no version.
    Column("graph", Json, nullable=False),
    Column("graph_version", Integer, nullable=False),
    Column("metadata", Json, nullable=False),
    *changes(),
    Unique("workspace", "id"),
    CheckConstraint("name <> ''", name="name"),
    CheckConstraint("graph_version >= 1", name="graph_version"),
    Index("ix_workflows_newest", "workspace", "created_at", "id"),
)

workflow_versions = Table(
    "workflow_versions",
    metadata,
    *of_workspace(),
    Column("workflow", ID, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("graph", Json, nullable=False),
    Column("note", Text, nullable=False, default=""),
    Column("created_at", UtcTime, nullable=False),
    Column("created_by", ID, nullable=True),
    ForeignKeyConstraint(["workspace", "workflow"], ["workflows.workspace", "workflows.id"], ondelete="CASCADE"),
    CheckConstraint("number >= 1", name="number"),
)

tasks = Table(
    "tasks",
    metadata,
    Column("id", ID, primary_key=True),
    *of_workspace(),
    *in_project(),
    Column("name", NAME, nullable=False),
    Column("description", Text, nullable=False, default=""),
    Column("runnable_type", String(20), nullable=False),
    Column("runnable_id", NAME, nullable=True),
    Column("input", Json, nullable=True),
    Column("parameters", Json, nullable=False),
    Column("metadata", Json, nullable=False),
    # Its latest run, whose status is the task's.
    Column("last_run", String(128), nullable=True),
    *changes(),
    Unique("workspace", "id"),
    CheckConstraint("runnable_type IN ('agent', 'team', 'workflow', 'function')", name="runnable_type"),
    CheckConstraint("name <> ''", name="name"),
    Index("ix_tasks_newest", "workspace", "created_at", "id"),
)
