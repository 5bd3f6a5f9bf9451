"""The logs and the state of all nodes, gathered into a folder after a failure."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from swarmer.clients import consul_api
from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.pool import Pool
from swarmer.ssh import CommandTimeout

#: File name to the command on the node that fills it.
_COMMANDS: Final = {
    "journal.log": "journalctl --no-pager --output=short-iso-precise",
    "cloud-init-output.log": "cat /var/log/cloud-init-output.log",
    "cloud-init.log": "cat /var/log/cloud-init.log",
    "units.txt": "systemctl list-units --all --no-pager; systemctl --failed --no-pager",
    "network.txt": "ip address; ip route; ss -lntup; nft list ruleset",
    "processes.txt": "ps -eo pid,ppid,stat,rss,etime,args",
}

#: Seconds for one command, multiplied by the stack's slowness.
_COMMAND_TIMEOUT: Final = 10.0

#: Files of each node that are obtained at the same time: few, as the node may be slow.
_AT_A_TIME: Final = 3


def collect(cluster: Cluster, folder: Path) -> Path:
    """Write the logs and the state of a cluster into a folder.

    Each file is obtained on its own. One that can't be obtained has the reason instead, one that takes too long has
    what there was until then, and neither affects the others. Secrets of the cluster are masked in all files.

    Returns:
        The folder: one subfolder per node with its console and the output of some commands; `consul.json`; the logs of
        the tools under the stack.

    Raises:
        SwarmerError: the secrets can't be read, so they can't be masked.
        OSError: files can't be written; those that can are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mask = cluster.credentials.mask
    with Pool(_AT_A_TIME * len(cluster.nodes)) as pool:
        pool.map(lambda file: _write(folder / file[0], file[1], mask), _files(cluster))
    return folder


def _files(cluster: Cluster) -> Iterator[tuple[str, Callable[[], str]]]:
    """Names of files, each with the function that obtains the content."""
    for node in cluster.nodes:
        yield f"{node.name}/console.log", node.console
    yield "consul.json", partial(_consul_view, cluster)
    for name, command in _COMMANDS.items():
        for node in cluster.nodes:
            yield f"{node.name}/{name}", partial(_output, node, command)
    for log in cluster.stack.logs():
        yield log.name, partial(log.read_text, errors="replace")


def _write(file: Path, content: Callable[[], str], mask: Callable[[str], str]) -> None:
    try:
        text = content()
    except Exception as error:  # of any kind: when something is broken, anything may be
        text = f"{type(error).__name__}: {error}\n"
    file.parent.mkdir(exist_ok=True)
    file.write_text(mask(text))


def _output(node: Node, command: str) -> str:
    if not node.running:
        return f"{node.name} is switched off\n"
    try:
        result = node.execute(command, timeout=_COMMAND_TIMEOUT)
    except CommandTimeout as error:
        return f"{error.output}{error}\n"
    return result.stdout + result.stderr


def _consul_view(cluster: Cluster) -> str:
    """JSON of the members, the leader and the raft peers, as each server sees them: it shows a split brain."""
    view: dict[str, dict[str, object]] = {}
    for node in cluster.consul_servers:
        seen = view[node.name] = {}
        try:
            seen["members"] = {member["Name"]: member["Status"] for member in node.consul.agent.members()}
            seen["leader"] = node.consul.status.leader()
            seen["peers"] = [vars(peer) for peer in consul_api.raft_peers(node.consul)]
        except (*consul_api.Unavailable, OSError) as error:  # OSError: the client's certificate is missing
            seen["error"] = f"{type(error).__name__}: {error}"
    return json.dumps(view, indent=1)
