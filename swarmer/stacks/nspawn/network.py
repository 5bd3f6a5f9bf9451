"""The network of an nspawn cluster: a bridge in its own network namespace, and one link to the host.

The namespace keeps the nodes' traffic away from the host's packet filters (those of docker and libvirt drop bridged
packets), and everything in it is removed with it.
"""

import json
import re
from pathlib import Path

from swarmer.shell import run
from swarmer.spec import Spec
from swarmer.state import ClusterHome

#: The name of the bridge inside the namespace.
BRIDGE = "cluster"

#: The setting whether this host forwards packets, and the marker file that it was off before a cluster needed it. Both
#: are reset by a reboot.
IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
FORWARDING_WAS_OFF = Path("/run/swarmer-forwarding-was-off")

#: The tables of iptables-legacy, which nft doesn't list; absent or empty if nothing uses it.
LEGACY_TABLES = Path("/proc/net/ip_tables_names")

#: The chain in which docker, ufw and other users of iptables drop forwarded packets.
FORWARD = ("ip", "filter", "FORWARD")

#: The comment that identifies the tables of clusters with internet.
TABLE_COMMENT = "swarmer: a cluster with internet"


def namespace(home: ClusterHome) -> str:
    """The network namespace of a cluster."""
    return f"swarmer-{home.dc}-{home.tag}"


def host_link(home: ClusterHome) -> str:
    """The host's end of the link into the namespace (an interface name has at most 15 characters)."""
    return f"sw{home.tag}"


def create(home: ClusterHome, spec: Spec) -> None:
    """Create the namespace with its bridge, and link it to the host."""
    inside, link = namespace(home), host_link(home)
    run(["ip", "netns", "add", inside])
    _batch(
        f"link add {BRIDGE} type bridge\nlink set {BRIDGE} up\nlink set lo up",
        inside=inside,
    )
    _batch(
        f"link add {link} type veth peer name host netns {inside}\n"
        f"address add {spec.host_address}/{spec.admin_network.prefixlen} dev {link}\n"
        f"link set {link} up"
    )
    _batch(f"link set host master {BRIDGE} up", inside=inside)
    if spec.internet:
        _open_to_internet(home, spec)


def remove(home: ClusterHome) -> None:
    """Remove the namespace, the link and the packet filter; none of them need exist."""
    run(["ip", "link", "delete", host_link(home)], check=False)
    run(["ip", "netns", "delete", namespace(home)], check=False)
    run(["nft", "delete", "table", "ip", host_link(home)], check=False)
    _close_forward(host_link(home))
    _stop_forwarding()


def filters_of_others() -> list[str]:
    """The chains that drop forwarded packets and that swarmer doesn't open, as `TABLE CHAIN`: such as firewalld's."""
    listed = json.loads(run(["nft", "--json", "list", "chains"], check=False).stdout or "{}").get("nftables", [])
    chains = [entry["chain"] for entry in listed if "chain" in entry]
    return [
        f"{chain['family']} {chain['table']} {chain['name']}"
        for chain in chains
        if chain.get("hook") == "forward" and chain["family"] in ("ip", "inet")
        if chain.get("policy") == "drop" or chain["table"] == "firewalld"
        if (chain["family"], chain["table"], chain["name"]) != FORWARD
    ]


def _open_to_internet(home: ClusterHome, spec: Spec) -> None:
    link = host_link(home)
    rules = f"""
        table ip {link} {{
            comment "{TABLE_COMMENT}"
            chain postrouting {{
                type nat hook postrouting priority srcnat;
                ip saddr {spec.admin_network} oifname != "{link}" masquerade
            }}
        }}
    """
    run(["nft", "--file", "-"], input=rules)
    if _forward_rules():
        # Only expressions that iptables itself uses: it refuses to read a table that contains others.
        run(["nft", "insert", "rule", *FORWARD, "iifname", link, "accept"])
        run(["nft", "insert", "rule", *FORWARD, "oifname", link, "accept"])
    if IP_FORWARD.read_text().strip() == "0":
        FORWARDING_WAS_OFF.touch()
        IP_FORWARD.write_text("1")


def _forward_rules() -> str:
    """The rules of iptables' FORWARD chain with their handles; empty if nothing uses it."""
    return run(["nft", "--handle", "list", "chain", *FORWARD], check=False).stdout


def _close_forward(link: str) -> None:
    for handle in re.findall(rf'[io]ifname "{link}" .*# handle (\d+)', _forward_rules()):
        run(["nft", "delete", "rule", *FORWARD, "handle", handle], check=False)


def _stop_forwarding() -> None:
    """After the last cluster with internet is removed, restore the host's forwarding setting.

    It stays on if anything else uses it, such as a docker that was started in the meantime.
    """
    if not FORWARDING_WAS_OFF.exists() or TABLE_COMMENT in (rules := _rules()):
        return
    FORWARDING_WAS_OFF.unlink(missing_ok=True)
    if _masquerades(rules):
        return
    IP_FORWARD.write_text("0")
    # A cluster that starts now adds its table before it reads the setting: it reads the 0, or its table is found here.
    rules = _rules()
    if TABLE_COMMENT in rules:
        FORWARDING_WAS_OFF.touch()
    if _masquerades(rules):
        IP_FORWARD.write_text("1")


def _rules() -> str:
    return run(["nft", "list", "ruleset"]).stdout


def _masquerades(rules: str) -> bool:
    """Whether this host masquerades: by these rules, or possibly by rules of iptables-legacy."""
    return "masquerade" in rules.lower() or (LEGACY_TABLES.exists() and LEGACY_TABLES.read_text().strip() != "")


def _batch(commands: str, *, inside: str | None = None) -> None:
    run(["ip", *(["-netns", inside] if inside else []), "-batch", "-"], input=commands)
