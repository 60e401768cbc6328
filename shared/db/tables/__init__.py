"""The tables, one module a group; each group has migrations of its own."""

from shared.db.tables import tenants
from shared.db.tables.base import metadata

__all__ = ["metadata", "tenants"]
