"""What the nodes said, gathered into a folder after a failure."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from swarmer.clients import consul_api
from swarmer.errors import SwarmerError

if TYPE_CHECKING:
    from swarmer.cluster import Cluster
    from swarmer.cluster_node import Node

#: File name to the command on the node that fills it.
_COMMANDS = {
    "journal.log": "journalctl --no-pager --output=short-iso-precise",
    "cloud-init-output.log": "cat /var/log/cloud-init-output.log",
    "cloud-init.log": "cat /var/log/cloud-init.log",
    "units.txt": "systemctl list-units --all --no-pager; systemctl --failed --no-pager",
    "network.txt": "ip address; ip route; ss -lntup; nft list ruleset",
    "processes.txt": "ps -eo pid,ppid,stat,rss,etime,args",
}


def collect(cluster: "Cluster", folder: Path) -> Path:
    """Gather what every node can still tell; a node that can't be reached leaves its console.

    Secrets of the cluster are masked in all of it.

    Returns:
        The folder: one subfolder per node, `consul.json`, and the logs of the tools under the stack.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(len(cluster.nodes)) as pool:
        list(pool.map(lambda node: _collect_node(node, folder / node.name), cluster.nodes))
    for log in cluster.stack.logs():
        (folder / log.name).write_text(cluster.credentials.mask(log.read_text(errors="replace")))
    (folder / "consul.json").write_text(json.dumps(_consul_view(cluster), indent=1))
    return folder


def _collect_node(node: "Node", folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    mask = node.cluster.credentials.mask
    (folder / "console.log").write_text(mask(node.console()))
    for name, command in _COMMANDS.items() if node.running else ():
        try:
            result = node.execute(command, timeout=10)
            text = result.stdout + result.stderr
        except SwarmerError as error:
            (folder / "unreachable.txt").write_text(f"{error}\n")
            return
        (folder / name).write_text(mask(text))


def _consul_view(cluster: "Cluster") -> dict[str, object]:
    """The members and the raft peers, as each server sees them: a split brain shows here."""
    view: dict[str, object] = {}
    for node in cluster.consul_servers:
        try:
            members = {m["Name"]: m["Status"] for m in node.consul.agent.members()}
            view[node.name] = {"members": members, "leader": node.consul.status.leader()}
            view[node.name] = {
                "members": members,
                "leader": node.consul.status.leader(),
                "peers": [vars(peer) for peer in consul_api.raft_peers(node.consul)],
            }
        except consul_api.Unavailable as error:
            view.setdefault(node.name, f"{type(error).__name__}: {error}")
    return view
