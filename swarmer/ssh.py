"""How commands reach nodes, on every stack: OpenSSH with the cluster's own keys and one shared connection per node."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from swarmer.errors import NodeError
from swarmer.files import write_private
from swarmer.secrets.ssh_key import KeyPair
from swarmer.shell import capture
from swarmer.state import ClusterHome

#: Seconds that a command may run on the node after the host has given it up: only the host reports time-outs.
_OVERTIME: Final = 1.0

#: Seconds after SIGTERM until a command on a node gets SIGKILL.
_KILL_AFTER: Final = 1.0


@dataclass(frozen=True)
class Result:
    """The exit status and the output of a command on a node."""

    command: str
    status: int
    stdout: str
    stderr: str


class CommandTimeout(NodeError):
    """A command on a node did not end in time.

    Attributes:
        output: the whole lines that it printed until then.
    """

    def __init__(self, message: str, output: str) -> None:
        super().__init__(message)
        self.output = output


class Ssh:
    """Connections to the nodes of one cluster; `config` is a plain ssh_config: `ssh -F CONFIG NODE` works as well."""

    def __init__(self, home: ClusterHome, slowness: Callable[[], float] = lambda: 1.0) -> None:
        self.home = home
        self._slowness = slowness
        self.config = home.ssh / "config"

    def prepare(self, endpoints: Mapping[str, IPv4Address]) -> None:
        """Create the keys of a cluster that is about to be launched, and write its `config`.

        Args:
            endpoints: node name to the address at which this host reaches it.
        """
        self.home.ssh.mkdir(mode=0o700, exist_ok=True)
        for file in (self._client_key, *(self._host_key(name) for name in endpoints)):
            KeyPair.create(file)
        self.write_config(endpoints)

    def write_config(self, endpoints: Mapping[str, IPv4Address]) -> None:
        """Write `config` and `known_hosts` for these nodes.

        Args:
            endpoints: as for `prepare`.

        Raises:
            SwarmerError: a key is missing.
        """
        self.client_key()
        self.make_sockets_folder()
        known = [f"{name},{address} {self.host_key(name).public}" for name, address in endpoints.items()]
        write_private(self.home.ssh / "known_hosts", "\n".join(known) + "\n")
        hosts = [f"Host {name}\n  HostName {address}\n" for name, address in endpoints.items()]
        write_private(
            self.config,
            "".join(hosts)
            + f"""Host *
  User root
  IdentityFile "{self._client_key}"
  IdentitiesOnly yes
  UserKnownHostsFile "{self.home.ssh / "known_hosts"}"
  GlobalKnownHostsFile none
  StrictHostKeyChecking yes
  BatchMode yes
  ConnectTimeout {5 * self._slowness():.0f}
  ControlPath "{self.home.control_sockets}/%n"
  ControlMaster auto
  ControlPersist yes
  ServerAliveInterval {2 * self._slowness():.0f}
  ServerAliveCountMax 3
  LogLevel ERROR
""",
        )

    def make_sockets_folder(self) -> None:
        """Create the folder of the shared connections. It is where a reboot, or the user's last logout, removes it."""
        self.home.control_sockets.mkdir(mode=0o700, exist_ok=True)

    def client_key(self) -> KeyPair:
        """The key that every node of the cluster accepts."""
        return KeyPair.load(self._client_key)

    def host_key(self, node: str) -> KeyPair:
        """The key by which a node proves its identity; the seed data contains it."""
        return KeyPair.load(self._host_key(node))

    def renew_host_key(self, node: str) -> None:
        """Create another host key, for the next node of that name."""
        self._host_key(node).unlink(missing_ok=True)
        KeyPair.create(self._host_key(node))

    @property
    def _client_key(self) -> Path:
        return self.home.ssh / "id_ed25519"

    def _host_key(self, node: str) -> Path:
        return self.home.ssh / f"host-{node}"

    def command(self, node: str, *words: str, options: Sequence[str] = ()) -> list[str]:
        """The command line that runs `words` on a node, for a terminal or a subprocess; `options` are ssh's own."""
        return ["ssh", "-F", str(self.config), *options, node, *words]

    def run(self, node: str, command: str, *, timeout: float = 60, input: str | None = None) -> Result:
        """Run a shell command on a node to its end.

        Args:
            timeout: seconds, multiplied by the stack's slowness; afterwards the command is ended on the node as well,
                with the processes that it started, unless they left its process group.
            input: what the command reads from its standard input; nothing by default.

        Raises:
            CommandTimeout: the command did not end within `timeout` seconds.
            NodeError: the node can't be reached.
        """
        limit = timeout * self._slowness()
        try:
            done = capture(
                self.command(node, "--", _limited(command, limit + _OVERTIME)),
                timeout=limit,
                input=input,
                stdin=subprocess.DEVNULL if input is None else None,
            )
        except subprocess.TimeoutExpired as expired:
            raise CommandTimeout(f"{node}: `{command}` did not end within {limit:.0f} s", _lines(expired)) from None
        if done.returncode == 255:
            raise NodeError(f"{node} can't be reached: {done.stderr.strip() or 'the connection broke'}")
        return Result(command, done.returncode, done.stdout, done.stderr)

    def disconnect(self, node: str) -> None:
        """End the shared connection to a node, if there is one."""
        socket = self.home.control_sockets / node
        if socket.exists():
            _end_connection(socket)


def end_connections(folder: Path) -> None:
    """End every shared connection whose socket is in `folder`, and remove the folder."""
    for socket in folder.glob("*") if folder.is_dir() else ():
        _end_connection(socket)
    shutil.rmtree(folder, ignore_errors=True)


#: Seconds for an ssh of this host to end a shared connection; more than a busy host needs.
_EXIT_TIMEOUT = 30.0


def _end_connection(socket: Path) -> None:
    """End a shared connection, or at least stop using it: one that hangs ends itself, by ServerAliveCountMax."""
    with suppress(subprocess.TimeoutExpired):
        command = ["ssh", "-o", f"ControlPath={socket}", "-O", "exit", "node"]
        capture(command, timeout=_EXIT_TIMEOUT)
    socket.unlink(missing_ok=True)


def _limited(command: str, seconds: float) -> str:
    """The shell command, run by the login shell as sshd would, and ended after so many seconds."""
    return f'exec timeout --kill-after={_KILL_AFTER} {seconds:.1f} "$SHELL" -c {shlex.quote(command)}'


def _lines(expired: subprocess.TimeoutExpired) -> str:
    """The whole lines that a command printed until it was given up; a secret that is cut in two can't be masked."""
    printed: Sequence[bytes] = (expired.stdout or b"", expired.stderr or b"")  # bytes, in text mode as well
    return "".join(part[: part.rfind(b"\n") + 1].decode(errors="replace") for part in printed)


def quoted(*words: str | os.PathLike[str]) -> str:
    """Words as one shell command."""
    return shlex.join(os.fspath(word) for word in words)
