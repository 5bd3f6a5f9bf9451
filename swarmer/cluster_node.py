"""One node of a cluster, with the verbs of a scenario."""

import json
import shlex
import socket
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Protocol

import consul
import docker

from swarmer.clients import consul_api, dns_client, docker_api
from swarmer.errors import NodeError, PromiseBroken
from swarmer.ports import DNS
from swarmer.secrets.credentials import Credentials
from swarmer.spec import Server, Spec
from swarmer.ssh import Result, Ssh
from swarmer.stacks import Stack
from swarmer.state import ClusterHome
from swarmer.wait import Hopeless, NotYet, Waiting

#: Seconds a node may take from power to a finished cloud-init.
BOOT_TIMEOUT = 60.0


class ClusterOfNode(Protocol):
    """What a node needs of its cluster; `swarmer.cluster.Cluster` has it."""

    spec: Spec
    home: ClusterHome
    ssh: Ssh
    stack: Stack
    nodes: list["Node"]

    @property
    def credentials(self) -> Credentials: ...

    def announce(self, node: "Node") -> None: ...

    def replace(self, node: "Node") -> None: ...

    def wait_converged(self) -> None: ...


class Node(Waiting):
    """A node of a running cluster. Commands run as root, over SSH.

    Its clients of consul and docker are made once for each of its boots.
    """

    def __init__(self, cluster: ClusterOfNode, server: Server) -> None:
        self.cluster = cluster
        self.server = server
        self._consul: consul.Consul | None = None
        self._docker: docker.DockerClient | None = None

    def __repr__(self) -> str:
        return f"<node {self.name}>"

    @property
    def name(self) -> str:
        return self.server.name

    @property
    def ip(self) -> IPv4Address:
        """The node's address in the admin network."""
        return self.server.ip

    @property
    def slowness(self) -> float:
        return self.cluster.stack.slowness

    @property
    def endpoint(self) -> IPv4Address:
        """The address at which this host reaches the node."""
        return self.cluster.stack.endpoint(self.server)

    # -- commands ------------------------------------------------------------------------------------------

    def execute(self, command: str, *, timeout: float = 60, input: str | None = None) -> Result:
        """Run a shell command, and tell what it did, whatever that was.

        Args:
            timeout: seconds until it is given up.
            input: what the command reads.

        Raises:
            NodeError: the node can't be reached, or the command outlasted `timeout` seconds.
        """
        return self.cluster.ssh.run(self.name, command, timeout=timeout, input=input)

    def succeed(self, command: str, *, timeout: float = 60, input: str | None = None) -> str:
        """What a command prints that must succeed.

        Raises:
            PromiseBroken: it failed.
        """
        result = self.execute(command, timeout=timeout, input=input)
        if result.status:
            said = (result.stderr or result.stdout).strip()
            raise PromiseBroken(f"{self.name}: `{command}` failed with {result.status}: {said}")
        return result.stdout

    def ask(
        self, name: str, kind: str = "A", *, tcp: bool = False, port: int = DNS.number, timeout: float = 3
    ) -> dns_client.Answer:
        """The answer of the node's DNS, asked once; see `dns_client.ask`. The time-out is scaled."""
        return dns_client.ask(self.endpoint, name, kind, tcp=tcp, port=port, timeout=self.scaled(timeout))

    def fail(self, command: str, *, timeout: float = 60) -> str:
        """What a command prints that must fail.

        Raises:
            PromiseBroken: it succeeded.
        """
        result = self.execute(command, timeout=timeout)
        if not result.status:
            raise PromiseBroken(f"{self.name}: `{command}` was to fail, but succeeded: {result.stdout.strip()}")
        return result.stdout + result.stderr

    def wait_until_succeeds(self, command: str, *, timeout: float = 30) -> str:
        """What a command prints, once it succeeds."""

        def probe() -> str:
            result = self.execute(command)
            if result.status:
                raise NotYet(f"status {result.status}: {(result.stderr or result.stdout).strip()}")
            return result.stdout

        return self.until(f"`{command}` to succeed on {self.name}", probe, timeout=timeout)

    def wait_for_unit(self, unit: str, *, timeout: float = 30) -> None:
        """Wait until a systemd unit is active; at an end at once when it failed."""

        def probe() -> None:
            state = self.execute(f"systemctl is-active {shlex.quote(unit)}").stdout.strip()
            if state == "failed":
                raise Hopeless(f"{self.name}: {unit} failed; `journalctl -u {unit}` on the node says why")
            if state != "active":
                raise NotYet(state)

        self.until(f"{unit} to be active on {self.name}", probe, timeout=timeout)

    def wait_for_open_port(self, port: int, *, timeout: float = 30) -> None:
        """Wait until something listens on a TCP port of the node's admin address."""

        def probe() -> None:
            with socket.create_connection((str(self.endpoint), port), timeout=self.scaled(0.5)):
                pass

        self.until(f"port {port} of {self.name}", probe, timeout=timeout, interval=0.05, retry_on=(OSError,))

    # -- what the node says of itself ----------------------------------------------------------------------

    def boot_id(self) -> str:
        """The kernel's name for this boot; another one proves a reboot."""
        return self.succeed("cat /proc/sys/kernel/random/boot_id").strip()

    def main_pid(self, unit: str) -> int:
        """The process id of a unit's main process, 0 when it has none."""
        return int(self.succeed(f"systemctl show --property=MainPID --value {shlex.quote(unit)}"))

    def console(self) -> str:
        """The text that the node's console has printed, over all its boots."""
        return self.cluster.stack.console(self.name)

    def cloud_init_errors(self) -> list[str] | None:
        """The errors in cloud-init's own result, or None while it has not finished."""
        result = self.execute("cat /run/cloud-init/result.json 2>/dev/null")
        if result.status:
            return None
        errors: list[str] = json.loads(result.stdout)["v1"]["errors"]
        return errors

    @property
    def consul(self) -> consul.Consul:
        """A py-consul client of this node's own agent, with the management token."""
        if not self._consul:
            token = self.cluster.credentials.management_token
            self._consul = consul_api.client(self.cluster.home, self.endpoint, token=token, slowness=self.slowness)
        return self._consul

    @property
    def docker(self) -> docker.DockerClient:
        """A client of this node's engine, of the docker SDK, with the client certificate of the docker plane."""
        if not self._docker:
            self._docker = docker_api.client(self.cluster.home, self.endpoint, slowness=self.slowness)
        return self._docker

    def disconnect(self) -> None:
        """End the connections to this boot of the node; each comes back when it is used again."""
        self.cluster.ssh.disconnect(self.name)
        self.close_clients()

    def close_clients(self) -> None:
        """Close the clients of consul and docker."""
        if self._consul:
            consul_api.session(self._consul).close()
        if self._docker:
            self._docker.close()
        self._consul = self._docker = None

    # -- power ---------------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether the machine is switched on."""
        return self.cluster.stack.running(self.name)

    def power_off(self) -> None:
        """Pull the plug: no shutdown, no goodbye."""
        self.cluster.stack.power_off(self.name)
        self.disconnect()

    def power_on(self) -> None:
        """Boot the same disk again, and wait until cloud-init has finished."""
        self.cluster.stack.power_on(self.name)
        self.wait_booted()

    def reboot(self) -> None:
        """Restart the node by its own means, and prove it by a changed boot id."""
        before = self.boot_id()
        self.execute("systemctl reboot")

        def probe() -> None:
            self.disconnect()
            if self.boot_id() == before:
                raise NotYet(f"boot id {before}, as before")

        self.until(f"{self.name} to reboot", probe, timeout=BOOT_TIMEOUT, retry_on=(NodeError, PromiseBroken))
        self.wait_booted()

    def replace(self) -> None:
        """Throw the node away and boot a new one in its place: same name and address, new disk, new keys."""
        self.cluster.replace(self)
        self.wait_booted()

    def wait_booted(
        self,
        *,
        reached: Callable[[str], None] = lambda _: None,
        timeout: float = BOOT_TIMEOUT,
        stall: float | None = None,
        moved: Callable[[], object] = lambda: None,
    ) -> None:
        """Wait until cloud-init has finished without an error.

        Args:
            reached: is called with `ssh` and `booted` as the node reaches them.
            timeout: seconds until SSH answers, and from then on until cloud-init has finished.
            stall, moved: give up earlier when nothing new happens; see `swarmer.wait.Wait`.

        Raises:
            GaveUp: it took too long.
            Hopeless: the machine went off, or cloud-init reports that it failed.
        """
        self.close_clients()
        self._wait_for_ssh(timeout, stall, moved)
        reached("ssh")

        def probe() -> None:
            self._check_running()
            errors = self.cloud_init_errors()
            if errors is None:
                raise NotYet("no result of cloud-init")
            if errors:
                raise Hopeless(f"{self.name}: cloud-init failed: {'; '.join(errors)}")

        # Not oftener: each look is a process on the node, which has enough to do; the planes come up meanwhile.
        self.until(
            f"{self.name} to finish cloud-init",
            probe,
            timeout=timeout,
            interval=0.25,
            retry_on=(NodeError,),
            stall=stall,
            moved=moved,
        )
        reached("booted")
        self.cluster.announce(self)

    def _wait_for_ssh(self, timeout: float, stall: float | None, moved: Callable[[], object]) -> None:
        def probe() -> None:
            self._check_running()
            with socket.create_connection((str(self.endpoint), 22), timeout=self.scaled(0.3)):
                pass

        self.until(
            f"SSH of {self.name}",
            probe,
            timeout=timeout,
            interval=0.05,
            retry_on=(OSError,),
            stall=stall,
            moved=moved,
        )

    def _check_running(self) -> None:
        if not self.running:
            last = self.console().strip().splitlines()[-3:]
            raise Hopeless(f"{self.name} is not running; its console ended with: {' / '.join(last)}")
