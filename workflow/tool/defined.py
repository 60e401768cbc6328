"""Tools that are data: HTTP calls and functions, as the settings define them."""

from collections.abc import Iterator

from shared.config.tools import ToolsSettings
from workflow.tool.schema_tool import SchemaTool


def defined_tools(settings: ToolsSettings) -> Iterator[SchemaTool]:
    """Raises AppError INVALID_CONFIG."""
    yield from ()
