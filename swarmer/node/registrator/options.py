"""The options of a registrator: what it announces, and how it reaches consul and docker."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Consul:
    """How to reach the consul agent.

    Attributes:
        scheme: `http` or `https`.
        token: the secret of the ACL token, or None to be the agent's default.
        ca, certificate, key: PEM files, or None.
    """

    scheme: str
    host: str
    port: int
    token: str | None = None
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None

    @property
    def url_host(self) -> str:
        """The host as it stands in a URL."""
        return f"[{self.host}]" if ":" in self.host else self.host

    def __repr__(self) -> str:
        return f"{self.scheme}://{self.url_host}:{self.port}"


@dataclass(frozen=True)
class Options:
    """The options of the command line.

    Attributes:
        hostname: first part of every service's ID, and our mark on what we registered.
        ip: address of published ports, or "" to find it out.
        internal: announce a container's own address and port instead of the published ones.
        explicit: announce only what has a SERVICE_NAME.
        ip_label: container label that holds the address to announce, or "".
        tags: given to every service.
        ttl, ttl_refresh: seconds; 0 for services without a heartbeat.
        resync: seconds between two comparisons of everything; 0 for never.
        deregister_always: False keeps the services of a container that failed.
        retry_attempts: how often to try to reach consul again at the start; -1 for ever.
        retry_interval: seconds between two tries.
        docker: URL of the docker engine.
        labels_token: the secret by which a swarm manager shares the labels of swarm services; None not to share any.
    """

    consul: Consul
    hostname: str
    ip: str = ""
    internal: bool = False
    explicit: bool = False
    ip_label: str = ""
    tags: str = ""
    ttl: int = 0
    ttl_refresh: int = 0
    resync: int = 0
    deregister_always: bool = True
    retry_attempts: int = 0
    retry_interval: float = 2.0
    docker: str = "unix:///var/run/docker.sock"
    labels_token: str | None = None
