"""The settings of what Trunkline is made of and of what it uses: addresses, places, keys, sizes."""

from typing import Annotated, Literal

from pydantic import Field, SecretStr

from shared.config.types import (
    MIB,
    ApiKey,
    Count,
    DatabaseUrl,
    HttpUrl,
    LocalPath,
    LogLevel,
    OllamaHost,
    Origin,
    Port,
    RedisUrl,
    SandboxOrigin,
    Seconds,
    Section,
    Share,
    Text,
)


class ApiSettings(Section):
    """The HTTP gateway."""

    host: Text = Field(
        default="127.0.0.1", description="Address that the gateway listens on; 0.0.0.0 is every interface."
    )
    port: Port = Field(default=8000, description="Port that the gateway listens on.")
    workers: Count = Field(default=1, description="Gateway processes that share the port.")
    reload: bool = Field(default=False, description="Restart the gateway when its code changes; for development only.")
    public_url: HttpUrl | None = Field(
        default=None,
        description="The gateway's address as clients see it, for links. Unset: made from host and port.",
        examples=["https://agents.example.com"],
    )
    sandbox_origin: SandboxOrigin | None = Field(
        default=None,
        description="Where pages that sandboxes serve come from; the star stands for a port and a sandbox. A domain of "
        "its own, which the API is not under. Unset: http://*.localhost and the port.",
        examples=["https://*.agents-pages.example"],
    )
    public_links: bool = Field(
        default=False,
        description="Whether agents may make a sandbox's port public, without a ticket; at E2B, also whether "
        "machines that are made from now on let in whoever knows their id.",
    )
    cors_origins: list[Origin] = Field(
        default=[], description='Origins whose pages may call the API from a browser; "*" is all of them.'
    )
    cors_credentials: bool = Field(default=True, description="Whether those pages may send cookies.")
    cors_methods: list[Text] = Field(
        default=["GET", "POST", "PUT", "PATCH", "DELETE"], description="Methods that those pages may use."
    )
    cors_headers: list[Text] = Field(
        default=[
            *("Authorization", "Content-Type", "Idempotency-Key", "If-Match", "Last-Event-ID", "X-API-Key"),
            *("X-Request-Id", "X-Workspace-Id", "X-Workspace-Slug", "traceparent"),
        ],
        description="Request headers that those pages may send.",
    )
    hsts_max_age: Count | None = Field(
        default=None,
        description="Seconds for which browsers that came by https use nothing else (Strict-Transport-Security). "
        "Unset: they are not told. Needs an https:// api.public_url.",
        examples=[31_536_000],
    )
    max_body_bytes: Count = Field(default=1_048_576, description="Largest request body; a larger one is answered 413.")
    max_task_chars: Count = Field(default=100_000, description="Longest task; a longer one is answered 400.")


class LogSettings(Section):
    """What is logged, and how it looks."""

    level: LogLevel = Field(
        default="INFO", description="Least severity logged: DEBUG, INFO, WARNING, ERROR or CRITICAL."
    )
    format: Literal["auto", "color", "json"] = Field(
        default="auto",
        description="color for people, json for machines; auto is color on a terminal and json elsewhere.",
    )
    debug: bool = Field(
        default=False, description="Log everything, the libraries' debug messages too, whatever the level."
    )


class RedisSettings(Section):
    """Redis (or Valkey): live threads and runs, and the queue."""

    url: RedisUrl = Field(default="redis://127.0.0.1:6379/0", description="Where runs and streams live.")
    broker_url: RedisUrl | None = Field(
        default=None,
        description="A Redis of its own for the queue. Unset: the same one.",
        examples=["redis://127.0.0.1:6379/1"],
    )
    timeout_seconds: Seconds = Field(
        default=5, description="Patience with one command and with one connection attempt."
    )
    max_connections: Count = Field(default=200, description="Connections that one process may open.")
    replicas: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="Replicas that must have a change before it counts: for a Redis with failover. While "
        "there are fewer, work waits.",
    )
    full_at: Share = Field(
        default=0.8,
        description="Part of Redis' maxmemory in use from which on new work is refused (503): what runs can finish.",
    )


class DatabaseSettings(Section):
    """The SQL database: the catalogue and the archive."""

    url: DatabaseUrl | None = Field(
        default=None,
        description="postgresql+asyncpg:// or sqlite+aiosqlite:// URL. Unset: SQLite in the data folder.",
        examples=["postgresql+asyncpg://trunkline:password@127.0.0.1:5432/trunkline"],
    )
    pool_size: Count = Field(default=5, description="Connections that one process keeps open.")


class ArchiveSettings(Section):
    """What runs leave behind in the SQL database, and what stays in Redis."""

    every_seconds: Seconds = Field(default=2, description="How often a worker copies to SQL what changed.")
    keep_events_seconds: Annotated[Seconds, Field(ge=60)] = Field(
        default=3600,
        description="For how long an event stays in Redis once SQL has it; older ones are read from SQL.",
    )
    evict_after_seconds: Annotated[Seconds, Field(ge=60)] = Field(
        default=86_400,
        description="A thread in which nothing has gone on for so long leaves Redis. It comes back when it is used.",
    )
    retention_days: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="Runs that ended so many days ago are deleted, with their steps and events, and threads in which "
        "nothing has gone on for as long. 0: all are kept.",
    )


class AuthSettings(Section):
    """Who may use the API."""

    enabled: bool = Field(default=True, description="Ask for a key. Switching it off needs a loopback api.host.")
    allow_insecure: bool = Field(
        default=False,
        description="Allow auth.enabled = false on any api.host: whoever reaches the port may do everything.",
    )
    key_file: LocalPath | None = Field(
        default=None,
        description="File that holds the first key, made at the first start. Unset: key in the data folder.",
        examples=["/etc/trunkline/key"],
    )
    keys: list[ApiKey] = Field(
        default=[], description="Further keys that are accepted, of at least 16 characters each."
    )
    remember_seconds: Seconds = Field(
        default=3600, description="How long keys that a gateway has seen go on working while SQL is away."
    )
    recheck_seconds: Seconds = Field(
        default=15, description="How long a stream or WebSocket that is open goes on after its credentials have ended."
    )
    max_failures: Count = Field(
        default=30,
        description="Refused credentials of one address in a minute; after that only those known already count.",
    )


class LlmSettings(Section):
    """The language model."""

    model: Text | None = Field(
        default=None,
        description="A LiteLLM model name. Unset: the first provider with a key in the environment, "
        "else a reachable Ollama, else the scripted demo model.",
        examples=["anthropic/claude-sonnet-5-5"],
    )
    planning_model: Text | None = Field(
        default=None,
        description="A model for planning, which agents may give to those that they delegate to.",
        examples=["anthropic/claude-opus-5-5"],
    )
    api_key: SecretStr | None = Field(
        default=None,
        description="Key for the model's provider or server. Unset, and for models of other providers: "
        "the provider's own variable, such as OPENAI_API_KEY.",
        examples=["key-of-that-server"],
    )
    base_url: HttpUrl | None = Field(
        default=None,
        description="An OpenAI-compatible server to use instead of the provider's own address.",
        examples=["http://127.0.0.1:8080/v1"],
    )
    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(
        default=None, description="Sampling temperature, 0 to 2. Unset: the model's own.", examples=[0.2]
    )
    max_output_tokens: Count | None = Field(
        default=None, description="Longest answer of one call. Unset: the model's own.", examples=[8192]
    )
    context_tokens: Count | None = Field(
        default=None,
        description="The model's context window. Unset: what LiteLLM knows of the model, else 128000.",
        examples=[200_000],
    )
    timeout_seconds: Seconds = Field(default=120, description="Longest wait for a call's first or next piece.")
    max_attempts: Count = Field(default=4, description="Tries of one call with one model.")
    backoff_seconds: Seconds = Field(
        default=1, description="Pause before the second try; it doubles with each further one."
    )
    backoff_max_seconds: Seconds = Field(default=30, description="Longest pause between tries.")
    fallback_models: list[Text] = Field(
        default=[],
        description="Models that are asked, in this order, while the run's own cannot answer. "
        "They are called as it is: at base_url, where that is set.",
    )
    breaker_failures: Count = Field(
        default=5,
        description="Failures in a row that a model's provider may have; after one more, it is left alone for a while.",
    )
    breaker_seconds: Seconds = Field(default=60, description="That while; then one call tries whether it is back.")
    ollama_host: OllamaHost | None = Field(
        default=None,
        description="Ollama's address, host:port or an URL. Unset: http://127.0.0.1:11434 is tried.",
        examples=["http://127.0.0.1:11434"],
    )


class WorkerSettings(Section):
    """The processes that execute runs."""

    concurrency: Count = Field(default=100, description="Runs that one worker executes at the same time.")
    workspace_concurrency: Count | None = Field(
        default=None,
        description="Runs of one workspace that may go on at the same time, on all workers together; the others wait. "
        "Unset: no limit, so that one workspace's flood delays the others.",
        examples=[50],
    )
    lease_seconds: Seconds = Field(
        default=6, description="Silence after which a worker counts as dead and its runs go on."
    )
    renew_seconds: Seconds = Field(default=1.5, description="Pause between renewals of the lease.")
    watchdog_seconds: Seconds = Field(
        default=5, description="Standstill of its loop after which a worker renews no more."
    )
    hang_seconds: Seconds = Field(
        default=30, description="Standstill of its loop after which a worker exits (status 70), to be started anew."
    )
    sweep_seconds: Seconds = Field(default=0.5, description="Pause between looks for dead workers and due timers.")
    drain_seconds: Seconds = Field(default=25, description="Time that a stopping worker gives its steps to finish.")
    max_attempts: Count = Field(default=5, description="Attempts in a row that may commit nothing before a run fails.")
    ring_seconds: Seconds = Field(
        default=5, description="Wait before a queued run that no worker took is queued again."
    )


class WorkflowSettings(Section):
    """Durable functions."""

    modules: list[Text] = Field(
        default=[],
        description="Python modules whose durable functions workers run.",
        examples=[["my_company.flows"]],
    )


class EventsSettings(Section):
    """The event bus."""

    retention_seconds: Seconds = Field(
        default=86_400, description="How long an event is kept for those who come to wait for it later."
    )
    max_events: Count = Field(default=10_000, description="Newest events kept under one name and key.")


class PayloadsSettings(Section):
    """Large inputs, outputs and results of steps, which are kept beside the run and named by it."""

    inline_bytes: Annotated[int, Field(ge=1024)] = Field(
        default=65_536, description="Largest value, as JSON, that stands in the run itself."
    )
    max_bytes: Annotated[int, Field(ge=1024, le=256 * MIB)] = Field(
        default=10 * MIB, description="Largest value at all: a step with a larger result fails, and is not tried again."
    )
    store: Literal["redis", "folder", "s3"] = Field(
        default="redis",
        description="Where they are kept: redis, with their thread; folder, in the data folder, which all gateways "
        "and workers must then share; s3, in a bucket (pip install 'trunkline[s3]').",
    )
    spill_bytes: Annotated[int, Field(ge=0)] = Field(
        default=MIB, description="Largest one that stays in Redis where the store is another."
    )
    s3_bucket: Text | None = Field(
        default=None,
        description="The bucket. Keys and region come from AWS's own variables, such as AWS_ACCESS_KEY_ID.",
        examples=["trunkline-payloads"],
    )
    s3_endpoint: HttpUrl | None = Field(
        default=None,
        description="Address of an S3-compatible store. Unset: AWS.",
        examples=["http://127.0.0.1:9000"],
    )
    s3_prefix: str = Field(default="payloads", description="What the names of its objects begin with.")


class TemplatesSettings(Section):
    """Code templates, from which agents start projects."""

    folder: LocalPath | None = Field(
        default=None,
        description="Folder of templates of your own; one named like a built-in one replaces it. Unset: none.",
        examples=["/etc/trunkline/templates"],
    )
    packages: LocalPath | None = Field(
        default=None,
        description="Folder of what templates depend on, filled by scripts/templates, read-only in local sandboxes. "
        "Unset: templates in the data folder.",
        examples=["/var/lib/trunkline/templates"],
    )
