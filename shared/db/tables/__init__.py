"""The tables, one module a group; each group has migrations of its own."""

from shared.db.tables import agents, tenants
from shared.db.tables.base import metadata

__all__ = ["agents", "metadata", "tenants"]
