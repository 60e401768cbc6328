"""What all tables have in common."""

from datetime import datetime

from sqlalchemy import Column, ForeignKeyConstraint, Integer, MetaData, String

from shared.db.types import UtcTime

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

ID = String(64)
NAME = String(200)


def of_workspace() -> list[Column[str] | ForeignKeyConstraint]:
    """The column by which every row belongs to one workspace, which takes its rows with it."""
    return [
        Column("workspace", ID, nullable=False, index=True),
        ForeignKeyConstraint(["workspace"], ["workspaces.id"], ondelete="CASCADE"),
    ]


def in_project() -> list[Column[str] | ForeignKeyConstraint]:
    """A project of the same workspace: a foreign one cannot be named."""
    return [
        Column("project", ID, nullable=True),
        ForeignKeyConstraint(["workspace", "project"], ["projects.workspace", "projects.id"]),
    ]


def changes() -> list[Column[int] | Column[datetime]]:
    """`version` rises with every change: whoever changes what he read says which one that was."""
    return [
        Column("version", Integer, nullable=False, default=1),
        Column("created_at", UtcTime, nullable=False),
        Column("updated_at", UtcTime, nullable=False),
    ]
