"""The provider that the settings name. Packages that are optional are imported here, where they are wanted."""

from shared.config import Settings
from shared.errors import AppError, ErrorCode
from shared.install import Install
from workflow.sandbox.base import Capabilities, SandboxProvider
from workflow.sandbox.egress import network_of
from workflow.sandbox.local import LocalProvider
from workflow.sandbox.machine import Cloud
from workflow.sandbox.remote_provider import RemoteProvider


def choose_provider(settings: Settings, install: Install) -> SandboxProvider:
    """`install` is our name on what is made. Raises AppError INVALID_CONFIG where a package is missing."""
    name = settings.sandbox.provider
    if name == "local":
        return LocalProvider(settings, install.redis)
    try:
        cloud = _cloud(settings, install)
    except ImportError as error:
        detail = f"sandbox.provider {name} needs a package. Install it: pip install 'trunkline[{name}]' ({error})."
        raise AppError(ErrorCode.INVALID_CONFIG, detail) from error
    return RemoteProvider(cloud, _capabilities(settings), settings.sandbox.max_command_seconds)


def _capabilities(settings: Settings) -> Capabilities:
    processes = settings.docker.processes if settings.sandbox.provider == "docker" else None
    return Capabilities(network_of(settings.sandbox), processes)


def _cloud(settings: Settings, install: Install) -> Cloud:
    """Raises ImportError."""
    network = network_of(settings.sandbox)
    match settings.sandbox.provider:
        case "e2b":
            from workflow.sandbox.e2b import E2BCloud  # noqa: PLC0415 - an optional dependency

            return E2BCloud(settings.e2b, network, install, public=settings.api.public_links)
        case "daytona":
            from workflow.sandbox.daytona import DaytonaCloud  # noqa: PLC0415

            return DaytonaCloud(settings.daytona, network, install)
        case "docker":
            from workflow.sandbox.docker import DockerCloud  # noqa: PLC0415

            return DockerCloud(settings.docker, network, install)
        case name:
            raise AssertionError(f"no such provider: {name}")
