"""All settings, in their sections. docs/configuration.md and config.toml are made from them.

Plain frozen data: making a section reads no file and no environment, so a test says `Settings(api=ApiSettings(...))`.
"""

from functools import cache
from pathlib import Path
from typing import get_args

from pydantic import Field, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from shared.config.access import AuditSettings, JwtSettings
from shared.config.agents import AgentsSettings
from shared.config.clouds import DaytonaSettings, DockerSettings, E2BSettings
from shared.config.limits import (
    AgentSettings,
    BudgetSettings,
    RateLimitSettings,
    StreamSettings,
)
from shared.config.observe import MetricsSettings, TracingSettings
from shared.config.rules import broken_rules
from shared.config.sandboxes import SandboxSettings, SnapshotSettings
from shared.config.services import (
    ApiSettings,
    ArchiveSettings,
    AuthSettings,
    DatabaseSettings,
    EventsSettings,
    LlmSettings,
    LogSettings,
    PayloadsSettings,
    RedisSettings,
    TemplatesSettings,
    WorkerSettings,
    WorkflowSettings,
)
from shared.config.tools import ToolsSettings
from shared.config.types import Environment, LocalPath, Section
from shared.config.web import McpSettings, NetSettings, WebSettings


class Settings(Section):
    env: Environment = Field(default="local", description="Kind of installation: local, dev or prod.")
    data: LocalPath = Field(default=Path("data"), description="Folder for keys, workspaces, the database and logs.")
    api: ApiSettings = ApiSettings()
    log: LogSettings = LogSettings()
    metrics: MetricsSettings = MetricsSettings()
    tracing: TracingSettings = TracingSettings()
    redis: RedisSettings = RedisSettings()
    database: DatabaseSettings = DatabaseSettings()
    archive: ArchiveSettings = ArchiveSettings()
    auth: AuthSettings = AuthSettings()
    jwt: JwtSettings = JwtSettings()
    audit: AuditSettings = AuditSettings()
    rate_limit: RateLimitSettings = RateLimitSettings()
    stream: StreamSettings = StreamSettings()
    llm: LlmSettings = LlmSettings()
    agent: AgentSettings = AgentSettings()
    budget: BudgetSettings = BudgetSettings()
    agents: AgentsSettings = AgentsSettings()
    worker: WorkerSettings = WorkerSettings()
    workflow: WorkflowSettings = WorkflowSettings()
    events: EventsSettings = EventsSettings()
    payloads: PayloadsSettings = PayloadsSettings()
    sandbox: SandboxSettings = SandboxSettings()
    snapshots: SnapshotSettings = SnapshotSettings()
    docker: DockerSettings = DockerSettings()
    e2b: E2BSettings = E2BSettings()
    daytona: DaytonaSettings = DaytonaSettings()
    tools: ToolsSettings = ToolsSettings()
    net: NetSettings = NetSettings()
    web: WebSettings = WebSettings()
    mcp: McpSettings = McpSettings()
    templates: TemplatesSettings = TemplatesSettings()

    @model_validator(mode="after")
    def _rules_hold(self) -> "Settings":
        broken = broken_rules(self)
        if broken:
            text = "; ".join(rule.text for rule in broken)
            raise PydanticCustomError("broken_rules", "{text}", {"text": text, "broken": broken})
        return self

    @property
    def broker_url(self) -> str:
        return self.redis.broker_url or self.redis.url

    @property
    def database_url(self) -> str:
        """SQLAlchemy's URL, with its password."""
        given = self.database.url
        return given.get_secret_value() if given else f"sqlite+aiosqlite:///{self.data / 'trunkline.db'}"

    @property
    def key_file(self) -> Path:
        return self.auth.key_file or self.data / "key"

    @property
    def sandbox_token_file(self) -> Path:
        return self.sandbox.token_file or self.data / "sandbox-token"

    @property
    def payload_folder(self) -> Path:
        return self.data / "payloads"

    @property
    def workspaces(self) -> Path:
        return self.sandbox.root or self.data / "workspaces"

    @property
    def template_packages(self) -> Path:
        return self.templates.packages or self.data / "templates"


def sections() -> dict[str, type[Section]]:
    """Section name -> its model."""
    annotations = {name: field.annotation for name, field in Settings.model_fields.items()}
    return {name: kind for name, kind in annotations.items() if isinstance(kind, type) and issubclass(kind, Section)}


@cache
def setting_fields() -> dict[str, FieldInfo]:
    """Every setting as `section.key` (or `key`, for the two that have no section) -> its field."""
    fields = {name: field for name, field in Settings.model_fields.items() if name not in sections()}
    for section, model in sections().items():
        fields.update({f"{section}.{key}": field for key, field in model.model_fields.items()})
    return fields


def is_secret(path: str) -> bool:
    """Whether it is one, or has one in it."""
    annotation = setting_fields()[path].annotation
    inner = [kind for kind in get_args(annotation) if isinstance(kind, type) and issubclass(kind, Section)]
    fields = [field for kind in inner for field in kind.model_fields.values()]
    return any("SecretStr" in str(each) for each in (annotation, *(field.annotation for field in fields)))
