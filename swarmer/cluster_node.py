"""One node of a cluster, with the operations that scenarios perform on it."""

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

#: Seconds that a node may take from power-on until cloud-init has finished.
BOOT_TIMEOUT = 60.0


class ClusterOfNode(Protocol):
    """What a node needs from its cluster; implemented by `swarmer.cluster.Cluster`."""

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

    Its consul and docker clients are created once per boot.
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
        """Run a shell command and return its result, whatever its exit status.

        Args:
            timeout: seconds after which the command is killed.
            input: its standard input.

        Raises:
            NodeError: the node can't be reached, or the command did not end within `timeout` seconds.
        """
        return self.cluster.ssh.run(self.name, command, timeout=timeout, input=input)

    def succeed(self, command: str, *, timeout: float = 60, input: str | None = None) -> str:
        """Run a command that must succeed, and return its standard output.

        Raises:
            PromiseBroken: the command failed.
        """
        result = self.execute(command, timeout=timeout, input=input)
        if result.status:
            output = (result.stderr or result.stdout).strip()
            raise PromiseBroken(f"{self.name}: `{command}` failed with {result.status}: {output}")
        return result.stdout

    def ask(
        self, name: str, kind: str = "A", *, tcp: bool = False, port: int = DNS.number, timeout: float = 3
    ) -> dns_client.Answer:
        """Query the node's DNS once; see `dns_client.ask`. The time-out is scaled."""
        return dns_client.ask(self.endpoint, name, kind, tcp=tcp, port=port, timeout=self.scaled(timeout))

    def fail(self, command: str, *, timeout: float = 60) -> str:
        """Run a command that must fail, and return its standard output and standard error.

        Raises:
            PromiseBroken: the command succeeded.
        """
        result = self.execute(command, timeout=timeout)
        if not result.status:
            raise PromiseBroken(f"{self.name}: `{command}` should fail, but succeeded: {result.stdout.strip()}")
        return result.stdout + result.stderr

    def wait_until_succeeds(self, command: str, *, timeout: float = 30) -> str:
        """Repeat a command until it succeeds, and return its standard output."""

        def probe() -> str:
            result = self.execute(command)
            if result.status:
                raise NotYet(f"status {result.status}: {(result.stderr or result.stdout).strip()}")
            return result.stdout

        return self.until(f"`{command}` to succeed on {self.name}", probe, timeout=timeout)

    def wait_for_unit(self, unit: str, *, timeout: float = 30) -> None:
        """Wait until a systemd unit is active; raises `Hopeless` immediately if the unit has failed."""

        def probe() -> None:
            state = self.execute(f"systemctl is-active {shlex.quote(unit)}").stdout.strip()
            if state == "failed":
                raise Hopeless(f"{self.name}: {unit} failed; run `journalctl -u {unit}` on the node for details")
            if state != "active":
                raise NotYet(state)

        self.until(f"{unit} to be active on {self.name}", probe, timeout=timeout)

    def wait_for_open_port(self, port: int, *, timeout: float = 30) -> None:
        """Wait until a TCP port of the node's admin address accepts connections."""

        def probe() -> None:
            with socket.create_connection((str(self.endpoint), port), timeout=self.scaled(0.5)):
                pass

        self.until(f"port {port} of {self.name}", probe, timeout=timeout, interval=0.05, retry_on=(OSError,))

    # -- state of the node ---------------------------------------------------------------------------------

    def boot_id(self) -> str:
        """The kernel's id of this boot; a changed id proves a reboot."""
        return self.succeed("cat /proc/sys/kernel/random/boot_id").strip()

    def main_pid(self, unit: str) -> int:
        """The process id of a unit's main process; 0 if it has none."""
        return int(self.succeed(f"systemctl show --property=MainPID --value {shlex.quote(unit)}"))

    def console(self) -> str:
        """The output of the node's console, over all its boots."""
        return self.cluster.stack.console(self.name)

    def cloud_init_errors(self) -> list[str] | None:
        """The errors that cloud-init reports, or None if it has not finished."""
        result = self.execute("cat /run/cloud-init/result.json 2>/dev/null")
        if result.status:
            return None
        errors: list[str] = json.loads(result.stdout)["v1"]["errors"]
        return errors

    @property
    def consul(self) -> consul.Consul:
        """A py-consul client of this node's agent, with the management token."""
        if not self._consul:
            token = self.cluster.credentials.management_token
            self._consul = consul_api.client(self.cluster.home, self.endpoint, token=token, slowness=self.slowness)
        return self._consul

    @property
    def docker(self) -> docker.DockerClient:
        """A docker SDK client of this node's engine, with the client certificate of the docker plane."""
        if not self._docker:
            self._docker = docker_api.client(self.cluster.home, self.endpoint, slowness=self.slowness)
        return self._docker

    def disconnect(self) -> None:
        """Close all connections to the node; each is reopened on its next use."""
        self.cluster.ssh.disconnect(self.name)
        self.close_clients()

    def close_clients(self) -> None:
        """Close the consul and docker clients."""
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
        """Cut the node's power, without a shutdown."""
        self.cluster.stack.power_off(self.name)
        self.disconnect()

    def power_on(self) -> None:
        """Boot the same disk again, and wait until cloud-init has finished."""
        self.cluster.stack.power_on(self.name)
        self.wait_booted()

    def reboot(self) -> None:
        """Run `systemctl reboot` on the node, and wait until its boot id has changed and it has booted."""
        before = self.boot_id()
        self.execute("systemctl reboot")

        def probe() -> None:
            self.disconnect()
            if self.boot_id() == before:
                raise NotYet(f"boot id {before}, as before")

        self.until(f"{self.name} to reboot", probe, timeout=BOOT_TIMEOUT, retry_on=(NodeError, PromiseBroken))
        self.wait_booted()

    def replace(self) -> None:
        """Discard the node and boot a new one in its place: same name and address, new disk, new keys."""
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
            reached: called with `ssh` and `booted` as the node reaches each state.
            timeout: seconds until SSH answers, and again from then until cloud-init has finished.
            stall, moved: give up earlier if nothing new happens; see `swarmer.wait.until`.

        Raises:
            GaveUp: the node took too long.
            Hopeless: the machine switched off, or cloud-init reported a failure.
        """
        self.close_clients()
        self._wait_for_ssh(timeout, stall, moved)
        reached("ssh")

        def probe() -> None:
            self._check_running()
            errors = self.cloud_init_errors()
            if errors is None:
                raise NotYet("cloud-init has not finished")
            if errors:
                raise Hopeless(f"{self.name}: cloud-init failed: {'; '.join(errors)}")

        # A longer interval, because each look runs a process on a node that is busy starting its services.
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
