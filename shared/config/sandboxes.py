"""The settings of sandboxes, wherever they run, and of those of the sandbox host."""

from collections.abc import Iterable, Iterator
from typing import Annotated, Literal

from pydantic import Field

from shared.config.types import (
    GIB,
    MIB,
    Count,
    HostPattern,
    HttpUrl,
    LocalPath,
    Port,
    PrivateHost,
    Seconds,
    Section,
    Text,
)
from shared.net.hosts import beyond
from shared.types import JSON


class SnapshotSettings(Section):
    """Copies of a sandbox's files, taken when a run ends, for forks and for when the files are lost."""

    enabled: bool = Field(default=True, description="Take them.")
    keep: Count = Field(default=3, description="Snapshots of one thread that are kept, the newest ones.")
    max_bytes: Count = Field(
        default=GIB, description="Most that a workspace's files may have together; larger ones are not taken."
    )
    exclude: list[Text] = Field(
        default=["node_modules", ".venv", "venv", "__pycache__", ".cache", ".pytest_cache", ".mypy_cache", ".agent"],
        description="Names of files and folders that are left out, wherever they are.",
    )


Provider = Literal["local", "docker", "e2b", "daytona"]
Network = Literal["none", "allow", "open"]


class SandboxBounds(Section):
    """What a kind of agents has less of than the settings give. Null: as they say."""

    enabled: bool = True
    provider: Provider | None = None
    network: Network | None = None
    allowed_hosts: list[HostPattern] | None = None
    memory_bytes: Annotated[int, Field(ge=64 * MIB)] | None = None
    processes: Annotated[int, Field(ge=16)] | None = None
    disk_bytes: Annotated[int, Field(ge=MIB)] | None = None


class SandboxSettings(Section):
    """Where tools run."""

    provider: Provider = Field(
        default="local",
        description="local: bubblewrap on the sandbox host's machine. The others have sections of their own.",
    )
    install: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,40}$")] | None = Field(
        default=None,
        description="Name of this installation on the sandboxes that it makes elsewhere; no other one with the same "
        "account may have it. Unset: one is made and kept in Redis.",
        examples=["production-eu"],
    )
    host_url: HttpUrl = Field(
        default="http://127.0.0.1:8765",
        description="Address of the sandbox host; of the remote host where provider is another one than local.",
    )
    token_file: LocalPath | None = Field(
        default=None,
        description="File with the token for the sandbox host. Unset: sandbox-token in the data folder.",
        examples=["/etc/trunkline/sandbox-token"],
    )
    root: LocalPath | None = Field(
        default=None,
        description="Folder of the workspaces. Unset: workspaces in the data folder.",
        examples=["/var/lib/trunkline/workspaces"],
    )
    uid: Annotated[int, Field(ge=1, le=2**31 - 1)] = Field(
        default=64321, description="User id that sandboxes run as where the host was started as root."
    )
    network: Network = Field(
        default="none",
        description="What sandboxes reach: none, nothing; allow, the hosts in allowed_hosts; open, every public host. "
        "See docs/sandboxes.md.",
    )
    allowed_hosts: list[HostPattern] = Field(
        default=[],
        description="Hosts that sandboxes reach where network is allow. A star stands for any names in front.",
        examples=[["packages.example.com", "*.files.example.com", "npm.example.com"]],
    )
    allowed_ports: list[Port] = Field(
        default=[], description="Ports of them that local sandboxes reach beside 80 and 443."
    )
    private_hosts: list[PrivateHost] = Field(
        default=[],
        description="Hosts that local sandboxes reach although they are in a private network, as host or host:port. "
        "Where network is allow, list them in allowed_hosts too.",
    )
    proxy_connections: Count = Field(
        default=128, description="Connections out of one local sandbox at once; more wait for their turn."
    )
    proxy_idle_seconds: Seconds = Field(default=300, description="Silence after which such a connection is closed.")
    memory_bytes: Annotated[int, Field(ge=64 * MIB)] = Field(default=GIB, description="Memory of one sandbox.")
    processes: Annotated[int, Field(ge=16)] = Field(default=256, description="Processes and threads of one sandbox.")
    open_files: Annotated[int, Field(ge=64)] = Field(default=1024, description="Files that one process may hold open.")
    file_bytes: Annotated[int, Field(ge=MIB)] = Field(default=512 * MIB, description="Largest file.")
    disk_bytes: Annotated[int, Field(ge=MIB)] = Field(default=2 * GIB, description="Disk space of one sandbox.")
    cpu_seconds: Count = Field(default=3600, description="CPU time that one process may use.")
    idle_seconds: Seconds = Field(default=900, description="Time without use after which a sandbox is put to rest.")
    max_running: Count = Field(
        default=50,
        description="Sandboxes of one host that run at once. When there are so many, the one idle the longest is put "
        "to rest for the next.",
    )
    upload_bytes: Count = Field(
        default=256 * MIB, description="Largest file or archive that the gateway takes for a sandbox; else 413."
    )
    page_answer_seconds: Seconds = Field(
        default=60, description="Patience with a server in a sandbox until its answer begins; then 504."
    )
    page_silence_seconds: Seconds = Field(
        default=600, description="Silence in the midst of an answer after which the gateway breaks it off."
    )
    link_connections: Count = Field(
        default=256, description="Connections to one port that one gateway keeps open at once."
    )
    port_connections: Count = Field(
        default=500, description="Connections to the ports of one sandbox that one host keeps open at once."
    )
    output_bytes: Annotated[int, Field(ge=MIB)] = Field(
        default=256 * MIB, description="Memory of the host for what commands have written, of all sandboxes together."
    )
    max_command_seconds: Seconds = Field(
        default=1800,
        description="Longest run of a command, even after its timeout has moved it to the background; "
        "one that was started there has no limit.",
    )

    def refused(self, asked: JSON) -> Iterator[tuple[str, str]]:
        """Of what is asked of a sandbox (fields of SandboxBounds), each that is not to be had, and why."""
        if asked.get("provider") not in (None, self.provider):
            yield "provider", f"sandboxes here are of {self.provider} (sandbox.provider)"
        network, hosts = asked.get("network"), asked.get("allowed_hosts")
        if (network == "allow") != bool(hosts):
            yield "allowed_hosts", 'goes with network = "allow", which needs it'
        if network == "open" and self.network != "open":
            yield "network", f"is {self.network} for all sandboxes here (sandbox.network)"
        if beyond := self.beyond(hosts or []):
            yield "allowed_hosts", f"{', '.join(beyond)}: sandboxes may not reach that (sandbox.network)"
        if self.provider != "local" and network not in (None, self.network, "open"):
            yield "network", f"cannot be narrowed for sandboxes of {self.provider}"
        for name in ("memory_bytes", "processes", "disk_bytes"):
            if asked.get(name) is None:
                continue
            if self.provider != "local":
                yield name, f"cannot be set for single sandboxes of {self.provider}"
            elif asked[name] > getattr(self, name):
                yield name, f"is at most {getattr(self, name):,} (sandbox.{name})"

    def beyond(self, hosts: Iterable[str]) -> list[str]:
        """Those of the hosts (or patterns of hosts) that sandboxes may not reach."""
        if self.network == "open":
            return []
        return beyond(hosts, self.allowed_hosts if self.network == "allow" else [])
