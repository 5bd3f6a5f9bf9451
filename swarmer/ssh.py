"""The one way to nodes, on every stack: OpenSSH with the cluster's own keys and one shared connection per node."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from swarmer.errors import NodeError
from swarmer.files import write_private
from swarmer.secrets.ssh_key import KeyPair
from swarmer.spec import Spec
from swarmer.state import ClusterHome
from swarmer.wait import patient


@dataclass(frozen=True)
class Result:
    """What a command on a node did."""

    command: str
    status: int
    stdout: str
    stderr: str


class Ssh:
    """Connections to the nodes of one cluster; `config` is a plain ssh_config that a person can use too."""

    def __init__(self, home: ClusterHome) -> None:
        self.home = home
        self.config = home.ssh / "config"

    def prepare(self, spec: Spec) -> None:
        """Make the keys, and write `ssh_config` and `known_hosts` for the nodes of the spec."""
        self.home.ssh.mkdir(mode=0o700, exist_ok=True)
        self.make_sockets_folder()
        self.client_key()
        known = [f"{s.name},{s.ip} {self.host_key(s.name).public}" for s in spec.servers]
        write_private(self.home.ssh / "known_hosts", "\n".join(known) + "\n")
        hosts = [f"Host {server.name}\n  HostName {server.ip}\n" for server in spec.servers]
        write_private(
            self.config,
            "".join(hosts)
            + f"""Host *
  User root
  IdentityFile "{self.home.ssh / "id_ed25519"}"
  IdentitiesOnly yes
  UserKnownHostsFile "{self.home.ssh / "known_hosts"}"
  GlobalKnownHostsFile none
  StrictHostKeyChecking yes
  BatchMode yes
  ConnectTimeout {patient(5):.0f}
  ControlPath "{self.home.control_sockets}/%n"
  ControlMaster auto
  ControlPersist yes
  ServerAliveInterval {patient(2):.0f}
  ServerAliveCountMax 3
  LogLevel ERROR
""",
        )

    def make_sockets_folder(self) -> None:
        """Make the folder of the shared connections. It lies where a reboot, or the user's last logout, removes it."""
        self.home.control_sockets.mkdir(mode=0o700, exist_ok=True)

    def client_key(self) -> KeyPair:
        """The key that opens every node of the cluster."""
        return KeyPair.open(self.home.ssh / "id_ed25519")

    def host_key(self, node: str) -> KeyPair:
        """The key by which a node proves itself; it travels in the seed data."""
        return KeyPair.open(self.home.ssh / f"host-{node}")

    def forget(self, node: str) -> None:
        """Drop the host key of a node, so that the next one of that name gets another."""
        for file in self.home.ssh.glob(f"host-{node}*"):
            if file.name in (f"host-{node}", f"host-{node}.pub"):
                file.unlink()

    def command(self, node: str, *words: str, options: Sequence[str] = ()) -> list[str]:
        """The command line that runs `words` on a node, for a terminal or a subprocess; `options` are ssh's own."""
        return ["ssh", "-F", str(self.config), *options, node, *words]

    def run(self, node: str, command: str, *, timeout: float = 60, input: str | None = None) -> Result:
        """Run a shell command on a node to its end.

        Raises:
            NodeError: the node can't be reached, or the command outlasted `timeout` seconds.
        """
        try:
            done = subprocess.run(
                self.command(node, "--", command),
                capture_output=True,
                text=True,
                errors="replace",
                timeout=patient(timeout),
                input=input,
                stdin=subprocess.DEVNULL if input is None else None,
            )
        except subprocess.TimeoutExpired:
            raise NodeError(f"{node}: `{command}` did not end within {patient(timeout):.0f} s") from None
        if done.returncode == 255:
            raise NodeError(f"{node} can't be reached: {done.stderr.strip() or 'the connection broke'}")
        return Result(command, done.returncode, done.stdout, done.stderr)

    def disconnect(self, node: str) -> None:
        """End the shared connection to a node, if there is one."""
        socket = self.home.control_sockets / node
        if socket.exists():
            subprocess.run(["ssh", "-o", f"ControlPath={socket}", "-O", "exit", node], capture_output=True, timeout=10)
            socket.unlink(missing_ok=True)


def end_connections(folder: Path) -> None:
    """End every shared connection whose socket is in `folder`, and remove the folder."""
    for socket in folder.glob("*") if folder.is_dir() else ():
        subprocess.run(["ssh", "-o", f"ControlPath={socket}", "-O", "exit", "node"], capture_output=True, timeout=10)
    shutil.rmtree(folder, ignore_errors=True)


def quoted(*words: str | os.PathLike[str]) -> str:
    """Words as one shell command."""
    return shlex.join(os.fspath(word) for word in words)
