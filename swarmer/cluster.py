"""A running cluster: its nodes, by name and by role, and everything needed to connect to them."""

from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv4Address

import consul

from swarmer import convergence
from swarmer.clients import consul_api, docker_api
from swarmer.cluster_node import Node
from swarmer.errors import SwarmerError
from swarmer.image import Image
from swarmer.ledger import Ledger
from swarmer.secrets.authority import Authority
from swarmer.secrets.credentials import Credentials, token_names
from swarmer.seed.cloudinit import SeedData, seed_data
from swarmer.spec import ConsulRole, Server, SwarmRole
from swarmer.ssh import Ssh
from swarmer.stacks import Stack, stack_of
from swarmer.wait import NotYet, Waiting

#: Seconds that a cluster may take to converge after all its nodes have booted, or one has returned.
CONVERGE_TIMEOUT = 60.0


class Cluster(Waiting):
    """The nodes of one spec; referred to as `STACK:DC` in commands and messages.

    Created by `lifecycle.launch` or `lifecycle.attach`. The object stays the same when the cluster is relaunched, but
    its nodes don't: look them up each time instead of storing them.

    Attributes:
        phases: name of a phase to seconds since the launch began: `launch`, `ssh`, `cloud-init`, `consul`,
            `converged`.
        notes: notes for the user, each to be shown once.
        former_members: the swarm ids of nodes that were replaced; the swarm may list them for a while.
        listeners: called with each node that has booted.
    """

    def __init__(self, ledger: Ledger, *, image: Image | None) -> None:
        self.listeners: list[Callable[[Node], None]] = []
        self._begin(ledger, image)

    def _begin(self, ledger: Ledger, image: Image | None) -> None:
        self.ledger = ledger
        self.home = ledger.home
        self.spec = ledger.spec
        self.ssh = Ssh(self.home, lambda: self.slowness)
        self.stack: Stack = stack_of(ledger)
        self.nodes = [Node(self, server) for server in self.spec.servers]
        self.phases: dict[str, float] = {}
        self.notes: list[str] = []
        self.former_members: set[str] = set()
        self._image = image
        self._authority: Authority | None = None
        self._credentials: Credentials | None = None

    def replace_with(self, fresh: "Cluster") -> None:
        """Make this object represent `fresh`, a cluster of the same spec that was launched in its place."""
        self.close()
        self._begin(fresh.ledger, fresh.image)
        self.phases, self.notes = fresh.phases, fresh.notes
        for node in self.nodes:
            self.announce(node)

    @property
    def slowness(self) -> float:
        return self.stack.slowness

    def close(self) -> None:
        """Close the clients of all nodes."""
        for node in self.nodes:
            node.close_clients()

    def __repr__(self) -> str:
        return f"<cluster {self.name}, {len(self.nodes)} nodes>"

    @property
    def name(self) -> str:
        """`STACK:DC`."""
        return self.home.name

    @property
    def image(self) -> Image:
        """The image for new nodes of this cluster.

        Raises:
            SwarmerError: the cluster was attached to, and its image no longer exists.
        """
        if self._image is None:
            raise SwarmerError(
                f"image {self.ledger.image} of {self.name} no longer exists, so nodes can't be replaced",
                hint=f"start a new cluster: `swarmer down {self.name}`, then `swarmer up`",
            )
        return self._image

    @property
    def authority(self) -> Authority:
        """The CAs of the cluster."""
        if self._authority is None:
            self._authority = Authority.load(self.home.folder, self.spec)
        return self._authority

    @property
    def credentials(self) -> Credentials:
        """The secrets of the cluster."""
        if self._credentials is None:
            self._credentials = Credentials.load(self.home.credentials)
        return self._credentials

    def add_missing_tokens(self) -> None:
        """Create tokens for nodes that were added to the spec after the launch."""
        self._credentials = Credentials.ensure_tokens(self.home.credentials, token_names(self.spec))

    @property
    def endpoints(self) -> dict[str, IPv4Address]:
        """Node name to the address at which this host reaches the node."""
        return {node.name: node.endpoint for node in self.nodes}

    # -- nodes ---------------------------------------------------------------------------------------------

    def node(self, name: str) -> Node:
        """The node of that name.

        Raises:
            SwarmerError: the cluster has no such node.
        """
        for node in self.nodes:
            if node.name == name:
                return node
        names = ", ".join(node.name for node in self.nodes)
        raise SwarmerError(f"{self.name} has no node {name}", hint=f"it has: {names}")

    @property
    def consul_servers(self) -> list[Node]:
        """The consul servers, in the order of the spec."""
        return [node for node in self.nodes if node.server.consul is ConsulRole.SERVER]

    def consul_leader(self, *, among: list[Node] | None = None, timeout: float = 15) -> Node:
        """Wait for a consul leader, as seen by the servers in `among` (default: all running), and return its node.

        Raises:
            GaveUp: no leader was elected within `timeout` seconds.
        """
        servers = among or [node for node in self.consul_servers if node.running]

        def probe() -> Node:
            for server in servers:
                try:
                    leader = server.consul.status.leader()
                except consul_api.Unavailable:
                    continue
                for node in servers:
                    if leader and leader.split(":")[0] == str(node.ip):
                        return node
            raise NotYet("no leader")

        return self.until("a consul leader", probe, timeout=timeout, interval=0.05)

    @property
    def registry_nodes(self) -> list[Node]:
        """The nodes that run the registry, in the order of the spec."""
        return [node for node in self.nodes if node.server in self.spec.registry_nodes]

    def registry_leader(self, *, timeout: float = 15) -> Node:
        """Wait for a registry leader, as recorded in consul, and return its node.

        Raises:
            GaveUp: no node became the leader within `timeout` seconds.
        """
        return self.until(
            "a registry leader",
            lambda: self.node(convergence.registry_leader(self)),
            timeout=timeout,
            interval=0.05,
            retry_on=consul_api.Unavailable,
        )

    def consul_followers(self) -> list[Node]:
        """The consul servers other than the leader."""
        leader = self.consul_leader()
        return [node for node in self.consul_servers if node is not leader]

    @property
    def consul(self) -> consul.Consul:
        """A py-consul client of the first consul server that answers."""
        return self.until(
            "a consul server that answers",
            lambda: convergence.reachable_server(self),
            timeout=15,
            retry_on=consul_api.Unavailable,
        )

    @property
    def swarm_managers(self) -> list[Node]:
        """The swarm managers, in the order of the spec."""
        return [node for node in self.nodes if node.server.swarm is not SwarmRole.AGENT]

    def swarm_leader(self, *, among: list[Node] | None = None, timeout: float = 30) -> Node:
        """Wait for a swarm leader, as seen by the managers in `among` (default: all running), and return its node.

        Raises:
            GaveUp: no leader was elected within `timeout` seconds.
        """

        def probe() -> Node:
            for manager in among or [node for node in self.swarm_managers if node.running]:
                try:
                    members = docker_api.members(manager.docker)
                except docker_api.Unavailable:
                    continue
                for member in members:
                    if member.leader and member.reachability == "reachable":
                        # Compare addresses: just after an election, docker may show a worker's name for the leader.
                        for node in self.swarm_managers:
                            if str(node.ip) == member.address:
                                return node
            raise NotYet("no leader")

        return self.until("a swarm leader", probe, timeout=timeout, interval=0.05)

    # -- health --------------------------------------------------------------------------------------------

    def wait_converged(self, *, timeout: float = CONVERGE_TIMEOUT) -> None:
        """Wait until the cluster has converged; see `convergence.wait_converged`."""
        convergence.wait_converged(self, timeout=timeout)

    def announce(self, node: Node) -> None:
        """Call the listeners with a node that has booted."""
        for listener in self.listeners:
            listener(node)

    # -- creating nodes ------------------------------------------------------------------------------------

    def seed(self, server: Server) -> SeedData:
        """The seed data of one node."""
        return seed_data(
            self.spec,
            server,
            authority=self.authority,
            credentials=self.credentials,
            login=self.ssh.client_key(),
            host_key=self.ssh.host_key(server.name),
            consul_version=self.image.consul_version,
            environment=self.stack.environment(server),
        )

    def replace(self, node: Node) -> None:
        """Replace a node, running or dead, by a new one; doesn't wait until it has booted.

        Raises:
            SwarmerError: the cluster lacks its CA, credentials or SSH key; the node is left as it is.
        """
        Authority.load(self.home.folder, self.spec)
        self.add_missing_tokens()
        self.ssh.client_key()
        with suppress(NotYet, *consul_api.Unavailable):
            self.former_members |= {convergence.swarm_ids(self)[node.name]} - {""}
        node.disconnect()
        self.ssh.renew_host_key(node.name)
        self.ssh.write_config(self.endpoints)
        self.stack.replace(node.server, self.seed(node.server), self.image)
