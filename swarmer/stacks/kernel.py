"""Features of this host's kernel that containers share: tried out in a network namespace of their own, not looked up.

A configuration file may be missing, and a module that exists may not be loadable.
"""

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from swarmer.errors import HostError
from swarmer.shell import run

#: The folders of modules, one for each kernel.
MODULES: Final = Path("/lib/modules")

_KEY: Final = "0x000102030405060708090a0b0c0d0e0f10111213"


@dataclass(frozen=True)
class Feature:
    """Something that a kernel may lack.

    Attributes:
        name: in a sentence, `this kernel lacks NAME`.
        option: the option with which kernels are built for it.
        modules: the modules that contain it.
        attempts: commands that succeed only with it.
    """

    name: str
    option: str
    modules: tuple[str, ...]
    attempts: tuple[Sequence[str], ...]


IPVS: Final = Feature("IPVS", "CONFIG_IP_VS", ("ip_vs", "ip_vs_rr"), (("genl", "ctrl", "get", "name", "IPVS"),))

#: As docker uses it: https://github.com/moby/moby, daemon/libnetwork/drivers/overlay/encryption.go
ESP: Final = Feature(
    "ESP with AES-GCM",
    "CONFIG_INET_ESP and CONFIG_CRYPTO_GCM",
    ("esp4", "gcm"),
    (
        (
            *("ip", "xfrm", "state", "add", "src", "192.0.2.1", "dst", "192.0.2.2", "proto", "esp", "spi", "1"),
            *("mode", "transport", "aead", "rfc4106(gcm(aes))", _KEY, "64"),
        ),
    ),
)

NETEM: Final = Feature(
    "netem",
    "CONFIG_NET_SCH_NETEM",
    ("sch_netem",),
    (("tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"),),
)

#: What the nodes' own network, and docker's networks between nodes, are made of.
VIRTUAL_LINKS: Final = Feature(
    "bridges, veth or VXLAN",
    "CONFIG_BRIDGE, CONFIG_VETH and CONFIG_VXLAN",
    ("bridge", "veth", "vxlan"),
    (
        ("ip", "link", "add", "name", "bridge0", "type", "bridge"),
        ("ip", "link", "add", "name", "veth0", "type", "veth", "peer", "name", "veth1"),
        ("ip", "link", "add", "name", "vxlan0", "type", "vxlan", "id", "1", "dstport", "4789"),
    ),
)

PACKET_FILTER: Final = Feature(
    "nftables with NAT",
    "CONFIG_NF_TABLES and CONFIG_NFT_MASQ",
    ("nf_tables", "nft_masq"),
    (
        ("nft", "add", "table", "ip", "t"),
        ("nft", "add", "chain", "ip", "t", "c", "{ type nat hook postrouting priority srcnat; }"),
        ("nft", "add", "rule", "ip", "t", "c", "masquerade"),
    ),
)


@cache
def lacks(feature: Feature) -> bool:
    """Whether this kernel lacks a feature. Attempts may make the kernel load its module; nothing else is changed.

    Raises:
        HostError: a program is missing, or this user can't create a network namespace.
    """
    run(["unshare", "--net", "true"])
    script = "; ".join(map(shlex.join, feature.attempts))
    return run(["unshare", "--net", "sh", "-ec", script], check=False).returncode != 0


def remedy(feature: Feature, *, otherwise: str) -> str:
    """A hint how to get a feature that this kernel lacks.

    Args:
        otherwise: what to do if this kernel can't be changed.
    """
    folder = MODULES / os.uname().release
    try:
        existing = {Path(line.partition(":")[0]).name.partition(".")[0] for line in _lines(folder / "modules.dep")}
    except OSError:
        existing = set()
    found = [module for module in feature.modules if module in existing]
    if found:
        return f"load it: `modprobe --all {' '.join(found)}`"
    extra = "install the rest of its modules (on Ubuntu, linux-modules-extra-$(uname -r)), or " if existing else ""
    return f"{extra}boot a kernel with {feature.option}, or {otherwise}"


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def check_namespaces() -> None:
    """Refuse a root without its usual rights, such as that of most containers.

    Raises:
        HostError: it can't create namespaces.
    """
    try:
        run(["unshare", "--mount", "--net", "--pid", "--fork", "true"])
    except HostError as error:
        hint = "run swarmer on the machine itself, or in a privileged container"
        raise HostError(f"root can't create namespaces here: {error.message}", hint=hint) from None
