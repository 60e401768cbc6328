"""The tables, one module a group; each group has migrations of its own."""

from shared.db.tables import agents, archive, catalogue, tenants
from shared.db.tables.base import metadata

__all__ = ["agents", "archive", "catalogue", "metadata", "tenants"]
