"""The settings of sandboxes that run elsewhere than on the sandbox host: in E2B, in Daytona, in Docker."""

from typing import Annotated

from pydantic import Field, SecretStr

from shared.config.types import GIB, MIB, Count, HttpUrl, Seconds, Section, Text


class E2BSettings(Section):
    """Sandboxes at E2B (sandbox.provider = "e2b"; pip install 'trunkline[e2b]')."""

    api_key: SecretStr | None = Field(
        default=None, description="Key for E2B. Unset: E2B_API_KEY.", examples=["e2b_0123456789abcdef"]
    )
    api_url: HttpUrl | None = Field(
        default=None,
        description="Address of the API, for an E2B of your own. Unset: E2B_API_URL, else E2B's cloud.",
        examples=["https://api.e2b.example.com"],
    )
    sandbox_url: HttpUrl | None = Field(
        default=None,
        description="Address under which all sandboxes are reached. Unset: E2B_SANDBOX_URL, else one for each sandbox.",
        examples=["https://sandbox.e2b.example.com"],
    )
    template: Text = Field(default="base", description="Template of a sandbox; it needs bash and Python 3.9 or later.")
    idle_seconds: Annotated[int, Field(ge=60, le=86_400)] = Field(
        default=600, description="Time without use after which a sandbox is paused; E2B has a longest one per plan."
    )


class DaytonaSettings(Section):
    """Sandboxes at Daytona (sandbox.provider = "daytona"; pip install 'trunkline[daytona]')."""

    api_key: SecretStr | None = Field(
        default=None, description="Key for Daytona. Unset: DAYTONA_API_KEY.", examples=["dtn_0123456789abcdef"]
    )
    api_url: HttpUrl | None = Field(
        default=None,
        description="Address of the API. Unset: DAYTONA_API_URL, else Daytona's cloud.",
        examples=["https://daytona.example.com/api"],
    )
    target: Text | None = Field(
        default=None, description="Region. Unset: DAYTONA_TARGET, else the organization's own.", examples=["eu"]
    )
    snapshot: Text | None = Field(
        default=None,
        description="Snapshot of a sandbox; it needs bash and Python 3.9 or later. Unset: Daytona's default one.",
        examples=["trunkline-tools"],
    )
    idle_seconds: Annotated[int, Field(ge=60)] = Field(
        default=900, description="Time without use after which a sandbox is stopped, in whole minutes."
    )
    archive_minutes: Count = Field(default=1440, description="Time after its stop at which a sandbox is archived.")
    delete_minutes: Count = Field(default=43_200, description="Time after its stop at which a sandbox is deleted.")
    start_seconds: Seconds = Field(default=60, description="Longest wait for a sandbox to start.")


class DockerSettings(Section):
    """Sandboxes as containers of a Docker engine (sandbox.provider = "docker"; pip install 'trunkline[docker]')."""

    url: Text | None = Field(
        default=None,
        description="Address of the engine. Unset: DOCKER_HOST, else the local one.",
        examples=["tcp://docker.example.com:2376"],
    )
    image: Text = Field(
        default="trunkline-sandbox",
        description="Image of a sandbox: deploy/Dockerfile.sandbox, or one with the same user and folders.",
    )
    memory_bytes: Annotated[int, Field(ge=64 * MIB)] = Field(default=GIB, description="Memory of one sandbox.")
    processes: Annotated[int, Field(ge=32)] = Field(default=256, description="Processes and threads of one sandbox.")
    cpus: Annotated[float, Field(gt=0)] = Field(default=1, description="Processors that one sandbox may keep busy.")
    network: Text = Field(
        default="bridge", description="Docker network of a sandbox where sandbox.network is open; else it has none."
    )
    idle_seconds: Annotated[int, Field(ge=60)] = Field(
        default=900, description="Time without use after which a container is stopped."
    )
