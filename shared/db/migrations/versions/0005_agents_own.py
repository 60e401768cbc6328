"""What agents have of their own beside what they are made of: rules for calls, MCP servers."""

import sqlalchemy as sa
from alembic import op

from shared.db.types import Json

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("agents", sa.Column("permissions", Json, nullable=True))
    op.add_column("agents", sa.Column("mcp_servers", Json, nullable=True))


def downgrade() -> None:
    op.drop_column("agents", "mcp_servers")
    op.drop_column("agents", "permissions")
