"""Whether this machine can run nspawn nodes, and what it rules out on them."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from swarmer import image as node_image
from swarmer import resolv_conf
from swarmer.errors import HostError
from swarmer.files import check_takes_overlays
from swarmer.shell import which
from swarmer.spec import Spec
from swarmer.stacks import findings, host_network, kernel
from swarmer.stacks.base import Capability
from swarmer.stacks.findings import Finding, Verdict, checked
from swarmer.stacks.kernel import Feature
from swarmer.stacks.nspawn.limits import check_inotify
from swarmer.stacks.nspawn.network import filters_of_others
from swarmer.stacks.nspawn.processes import Processes
from swarmer.state import ClusterHome

#: With more nodes, consul forms sooner if it starts before the rest of the node; measured by benchmarks/boot.py.
NODES_PER_PROCESSOR: Final = 2
#: The memory that a node and its containers use at most during the scenarios.
NODE_MEBIBYTES: Final = 500

_TOOLS: Final = ("systemd-nspawn", "ip", "nsenter", "unshare", "setsid", "ssh", "nft", "mmdebstrap")
_OTHER_STACK: Final = "use virtual machines instead: --stack=vagrant"


@dataclass(frozen=True)
class _Use:
    """What nodes use a feature of the kernel for; `without` is what happens if it is missing."""

    feature: Feature
    subject: str
    without: str


_USES: Final[Mapping[Capability, _Use]] = {
    Capability.IPVS: _Use(
        kernel.IPVS, "routing mesh", "published ports and virtual addresses of swarm services don't work"
    ),
    Capability.ENCRYPTED_OVERLAYS: _Use(
        kernel.ESP, "encrypted overlay networks", "their packets between nodes are lost without any message"
    ),
    Capability.NETEM: _Use(kernel.NETEM, "bad links", "scenarios can't delay, lose and reorder packets"),
}

_REQUIRED: Final[Mapping[str, Feature]] = {
    "virtual links": kernel.VIRTUAL_LINKS,
    "packet filter": kernel.PACKET_FILTER,
}


# -- what no cluster boots without -------------------------------------------------------------------------


def check_host() -> None:
    """Refuse a machine that can't run nspawn nodes.

    Raises:
        HostError: the machine doesn't run Linux, the user isn't root, or a tool is missing.
    """
    if os.uname().sysname != "Linux":
        raise HostError("the nspawn stack runs on Linux only", hint=_OTHER_STACK)
    _check_tools()
    _check_root()


def check_folder(home: ClusterHome) -> None:
    """Refuse a folder of a cluster in which no overlay can be.

    Raises:
        HostError: its path has characters that overlayfs doesn't support, or it is itself on an overlayfs.
    """
    unfit = set(str(home.folder)) & set(":,\\\"' ")
    if unfit:
        raise HostError(
            f"the path of folder {home.folder} contains characters that overlayfs doesn't support",
            hint="set SWARMER_HOME to a folder without spaces, quotes, backslashes, commas and colons in its path",
        )
    check_takes_overlays(home.folder, "SWARMER_HOME")


def _check_tools() -> None:
    if missing := [tool for tool in _TOOLS if not which(tool)]:
        raise HostError(
            f"the nspawn stack needs {', '.join(missing)}, which this machine lacks",
            hint=f"`make setup` installs it on Debian and Ubuntu; on other systems, {_OTHER_STACK}",
        )


def _check_root() -> None:
    if os.geteuid() != 0:
        raise HostError(
            "the nspawn stack needs root to create namespaces and mounts",
            hint=f"prefix the command with `bin/as-root`, or {_OTHER_STACK}",
        )


# -- what is ruled out -------------------------------------------------------------------------------------


def missing(processes: Processes) -> dict[Capability, str]:
    """The capabilities that nodes lack on this machine, with the reasons."""
    found = {
        Capability.OWN_KERNEL: "nspawn nodes share the host's kernel",
        Capability.CLOCK: "nspawn nodes share the host's clock",
    }
    for capability, use in _USES.items():
        if kernel.lacks(use.feature):
            found[capability] = f"nspawn nodes share the host's kernel, which lacks {use.feature.name}"
    if reason := _no_container_limits(processes):
        found[Capability.CONTAINER_LIMITS] = reason
    return found


def note(missing: Mapping[Capability, str]) -> str:
    """A sentence about what users of a cluster would miss; empty without such."""
    subjects = [use.subject for capability, use in _USES.items() if capability in missing]
    subjects = [subject for subject in subjects if subject != _USES[Capability.NETEM].subject]
    if Capability.CONTAINER_LIMITS in missing:
        subjects.append("limits of containers")
    return f"unavailable on this machine: {', '.join(subjects)}; see `swarmer doctor`" if subjects else ""


def _no_container_limits(processes: Processes) -> str:
    """The reason why docker can't limit the containers on nodes; empty if it can."""
    if processes.fresh_cgroup2:
        return "the host has control groups v1, whose controllers nodes can't use"
    return processes.unlimited


# -- all of it ---------------------------------------------------------------------------------------------


def examine(spec: Spec, home: ClusterHome, processes: Processes | HostError) -> Iterator[Finding]:
    """Look at everything that matters to a cluster on this machine.

    Args:
        processes: those of the cluster, or why there can be none.
    """
    root = checked("root", _check_root, "this process has it")
    tools = checked("programs", _check_tools, ", ".join(_TOOLS))
    yield root
    yield tools
    usable = root.verdict is tools.verdict is Verdict.OK
    if usable:
        namespaces = checked("namespaces", kernel.check_namespaces, "root can create them")
        yield namespaces
        usable = namespaces.verdict is Verdict.OK
    if usable:
        yield from _kernel()
    else:
        for subject in [*_REQUIRED, *(use.subject for use in _USES.values())]:
            yield Finding(subject, Verdict.UNKNOWN, "needs root, namespaces and the programs above")
    yield from _control_groups(processes)
    nodes = len(spec.servers)
    if root.verdict is Verdict.OK:
        yield checked("inotify instances", partial(check_inotify, nodes), f"enough for {nodes} nodes")
    yield checked("overlays", partial(check_folder, home), f"{home.folder} takes them")
    yield findings.memory(nodes * NODE_MEBIBYTES, f"{nodes} nodes with some containers")
    wanted = -(-nodes // NODES_PER_PROCESSOR)
    yield findings.processors(wanted, f"{nodes} nodes take turns at boot")
    yield from findings.disks(spec, home, image_built=node_image.find() is not None)
    if which("ip"):
        yield host_network.examine(spec, home)
    if spec.internet and usable:
        yield from _internet()


def _kernel() -> Iterator[Finding]:
    for subject, feature in _REQUIRED.items():
        if kernel.lacks(feature):
            reason, hint = f"this kernel lacks {feature.name}", kernel.remedy(feature, otherwise=_OTHER_STACK)
            yield Finding(subject, Verdict.FAILS, reason, hint)
        else:
            yield Finding(subject, Verdict.OK, f"this kernel has {feature.name.replace(' or ', ' and ')}")
    for use in _USES.values():
        if kernel.lacks(use.feature):
            reason = f"this kernel lacks {use.feature.name}: {use.without}"
            yield Finding(use.subject, Verdict.LIMITED, reason, kernel.remedy(use.feature, otherwise=_OTHER_STACK))
        else:
            yield Finding(use.subject, Verdict.OK, f"this kernel has {use.feature.name}")


def _control_groups(processes: Processes | HostError) -> Iterator[Finding]:
    if isinstance(processes, HostError):
        yield Finding("control groups", Verdict.FAILS, processes.message, processes.hint)
        return
    if processes.unlimited:
        reason = f"memory and cpus of servers.yml are not enforced: {processes.unlimited}"
        yield Finding("limits of nodes", Verdict.LIMITED, reason, "run swarmer on a host with systemd")
    else:
        yield Finding("limits of nodes", Verdict.OK, "memory and cpus of servers.yml are enforced")
    if reason := _no_container_limits(processes):
        without = "docker refuses --cpus and limits.cpus, and ignores --memory"
        hint = f"use a host with control groups v2 only, or {_OTHER_STACK}"
        yield Finding("limits of containers", Verdict.LIMITED, f"{reason}: {without}", hint)
    else:
        yield Finding("limits of containers", Verdict.OK, "nodes have the controllers of control groups v2")


def _internet() -> Iterator[Finding]:
    if others := filters_of_others():
        hint = "accept there what comes from and goes to the interface `sw…` of the cluster"
        reason = f"forwarded packets are dropped by {', '.join(others)}: nodes may not reach the internet"
        yield Finding("forwarding", Verdict.LIMITED, reason, hint)
    else:
        yield Finding("forwarding", Verdict.OK, "nothing that swarmer can't open drops the nodes' packets")
    if servers := resolv_conf.reachable_from_nodes():
        yield Finding("outside names", Verdict.OK, f"nodes ask {', '.join(map(str, servers))}")
    else:
        reason = f"{resolv_conf.RESOLV_CONF} names no server that nodes can reach"
        yield Finding("outside names", Verdict.LIMITED, reason, "add a nameserver that isn't on the loopback address")
