"""The network of an nspawn cluster: a bridge in a network namespace of its own, and one link to the host.

The namespace keeps the nodes' traffic away from the host's packet filters (docker's and libvirt's drop bridged
packets), and takes everything in it along when it goes.
"""

import re
from pathlib import Path

from swarmer.shell import run
from swarmer.spec import Spec
from swarmer.state import ClusterHome

#: The name of the bridge inside the namespace.
BRIDGE = "cluster"

#: Whether this host forwards packets, and the mark that it didn't before a cluster needed it; gone after a reboot,
#: like the setting itself.
IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
FORWARDING_WAS_OFF = Path("/run/swarmer-forwarding-was-off")

#: The tables of iptables-legacy, which nft doesn't list; absent or empty where nothing uses it.
LEGACY_TABLES = Path("/proc/net/ip_tables_names")

#: Where docker, ufw and what else goes by iptables drop forwarded packets, once they are there.
FORWARD = ("ip", "filter", "FORWARD")

#: By this the packet filters of clusters with internet are known.
TABLE_COMMENT = "swarmer: a cluster with internet"


def namespace(home: ClusterHome) -> str:
    """The network namespace of a cluster."""
    return f"swarmer-{home.dc}-{home.tag}"


def host_link(home: ClusterHome) -> str:
    """The host's end of the link into the namespace (an interface name has at most 15 characters)."""
    return f"sw{home.tag}"


def create(home: ClusterHome, spec: Spec) -> None:
    """Make the namespace with its bridge, and link it to the host."""
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
    """Remove the namespace, the link and the packet filter; none of them need be there."""
    run(["ip", "link", "delete", host_link(home)], check=False)
    run(["ip", "netns", "delete", namespace(home)], check=False)
    run(["nft", "delete", "table", "ip", host_link(home)], check=False)
    _close_forward(host_link(home))
    _stop_forwarding()


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
        # In the words that iptables itself uses: it refuses a table with others.
        run(["nft", "insert", "rule", *FORWARD, "iifname", link, "accept"])
        run(["nft", "insert", "rule", *FORWARD, "oifname", link, "accept"])
    if IP_FORWARD.read_text().strip() == "0":
        FORWARDING_WAS_OFF.touch()
        IP_FORWARD.write_text("1")


def _forward_rules() -> str:
    """What iptables lets through, each rule with its handle; empty where nothing has used it."""
    return run(["nft", "--handle", "list", "chain", *FORWARD], check=False).stdout


def _close_forward(link: str) -> None:
    for handle in re.findall(rf'[io]ifname "{link}" .*# handle (\d+)', _forward_rules()):
        run(["nft", "delete", "rule", *FORWARD, "handle", handle], check=False)


def _stop_forwarding() -> None:
    """Once the last cluster with internet is gone, the host forwards no more than before the first one.

    Unless others, such as a docker that was started meanwhile, share its connection too.
    """
    if not FORWARDING_WAS_OFF.exists() or TABLE_COMMENT in (rules := _rules()):
        return
    FORWARDING_WAS_OFF.unlink(missing_ok=True)
    if _masquerades(rules):
        return
    IP_FORWARD.write_text("0")
    # A cluster that begins now adds its table before it reads the setting: it finds the 0, or its table is found here.
    rules = _rules()
    if TABLE_COMMENT in rules:
        FORWARDING_WAS_OFF.touch()
    if _masquerades(rules):
        IP_FORWARD.write_text("1")


def _rules() -> str:
    return run(["nft", "list", "ruleset"]).stdout


def _masquerades(rules: str) -> bool:
    """Whether this host shares its connection: by these rules, or perhaps by some of iptables-legacy."""
    return "masquerade" in rules.lower() or (LEGACY_TABLES.exists() and LEGACY_TABLES.read_text().strip() != "")


def _batch(commands: str, *, inside: str | None = None) -> None:
    run(["ip", *(["-netns", inside] if inside else []), "-batch", "-"], input=commands)
