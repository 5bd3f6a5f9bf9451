"""What a node is when it is a virtual machine of its own."""

import platform
import time

from swarmer.cluster import Cluster
from swarmer.faults import Faults, clock_error
from swarmer.stacks.vagrant import libvirt
from swarmer.stacks.vagrant.plan import prefix


def test_it_has_a_kernel_of_its_own_with_all_that_the_stack_promises(cluster: Cluster) -> None:
    node = cluster.nodes[0]
    assert node.succeed("uname -r").strip() != platform.release()
    assert cluster.stack.missing == {}
    for module in ("ip_vs", "sch_netem", "overlay", "vxlan"):
        node.succeed(f"modprobe {module}")


def test_it_has_the_memory_and_the_processors_of_the_spec(cluster: Cluster) -> None:
    node = cluster.nodes[0]
    total = int(node.succeed("awk '/MemTotal/ {print $2}' /proc/meminfo")) / 1024
    assert 0.8 * node.server.memory < total <= node.server.memory
    assert int(node.succeed("nproc")) == node.server.cpus
    memory = cluster.stack.memory(node.name)
    assert memory is not None and memory > 2**20


def test_it_has_one_network_card_and_lets_nobody_in_but_root(cluster: Cluster) -> None:
    node = cluster.nodes[0]
    assert node.succeed("ls -d /sys/class/net/*/device").split() == ["/sys/class/net/eth0/device"]
    assert "allowusers root" in node.succeed("sshd -T").splitlines()


def test_it_has_a_clock_of_its_own(cluster: Cluster, faults: Faults) -> None:
    node = cluster.nodes[0]
    before = time.time()
    with faults.clock(node, ahead=3600):
        assert clock_error(node) > 3000
    assert time.time() - before < 3000


def test_its_power_can_be_cut_and_its_disk_stays_and_may_grow(cluster: Cluster) -> None:
    node = cluster.nodes[0]
    before = node.boot_id()
    node.succeed("echo kept > /root/kept && sync")
    node.power_off()
    assert not node.running
    libvirt.virsh("vol-resize", f"{prefix(cluster.ledger.home)}{node.name}.img", "12G", "--pool", libvirt.POOL)
    node.power_on()
    assert node.boot_id() != before
    assert int(node.succeed("df --block-size=1M --output=size / | tail -1")) > 11_000
    assert node.succeed("cat /root/kept") == "kept\n"
    assert node.console().count("Welcome to") == 2, "the console of both boots"
