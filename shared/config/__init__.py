"""Settings from config.toml and the environment: typed sections, frozen, loaded once by a program and passed on."""

from shared.config.access import AuditSettings, JwtSettings
from shared.config.agents import AgentDefinition, AgentsSettings
from shared.config.clouds import DaytonaSettings, DockerSettings, E2BSettings
from shared.config.limits import (
    AgentSettings,
    BudgetSettings,
    RateLimitSettings,
    StreamSettings,
)
from shared.config.load import export_env_file, load_settings
from shared.config.observe import MetricsSettings, TracingSettings
from shared.config.sandboxes import SandboxSettings, SnapshotSettings
from shared.config.sections import Settings
from shared.config.services import (
    ApiSettings,
    ArchiveSettings,
    AuthSettings,
    DatabaseSettings,
    LlmSettings,
    LogSettings,
    PayloadsSettings,
    RedisSettings,
    TemplatesSettings,
    WorkerSettings,
)
from shared.config.tools import ToolDefinition, ToolsSettings
from shared.config.web import McpServerSettings, McpSettings, NetSettings, WebSettings

__all__ = [
    "AgentDefinition",
    "AgentSettings",
    "AgentsSettings",
    "ApiSettings",
    "ArchiveSettings",
    "AuditSettings",
    "AuthSettings",
    "BudgetSettings",
    "DatabaseSettings",
    "DaytonaSettings",
    "DockerSettings",
    "E2BSettings",
    "JwtSettings",
    "LlmSettings",
    "LogSettings",
    "McpServerSettings",
    "McpSettings",
    "MetricsSettings",
    "NetSettings",
    "PayloadsSettings",
    "RateLimitSettings",
    "RedisSettings",
    "SandboxSettings",
    "Settings",
    "SnapshotSettings",
    "StreamSettings",
    "TemplatesSettings",
    "ToolDefinition",
    "ToolsSettings",
    "TracingSettings",
    "WebSettings",
    "WorkerSettings",
    "export_env_file",
    "load_settings",
]
