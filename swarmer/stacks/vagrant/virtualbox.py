"""Controls VirtualBox by VBoxManage: the power of machines that Vagrant created, and their removal."""

import re

from swarmer.errors import HostError
from swarmer.shell import run
from swarmer.wait import until


def machines() -> list[str]:
    """The names of all machines, switched on or not."""
    return re.findall(r'^"(.*)" \{', run(["VBoxManage", "list", "vms"]).stdout, re.MULTILINE)


def running(machine: str) -> bool:
    """Whether the machine is switched on."""
    info = run(["VBoxManage", "showvminfo", machine, "--machinereadable"], check=False).stdout
    return 'VMState="running"' in info.splitlines()


def start(machine: str) -> None:
    """Switch the machine on."""
    _once_unlocked("startvm", machine, "--type", "headless")


def pull_the_plug(machine: str) -> None:
    """Switch the machine off immediately; it may already be off, or not exist."""
    run(["VBoxManage", "controlvm", machine, "poweroff"], check=False)


def remove(machine: str) -> None:
    """Switch the machine off and remove it with its disks; it need not exist."""
    pull_the_plug(machine)
    if machine in machines():
        _once_unlocked("unregistervm", machine, "--delete")


def _once_unlocked(*words: str) -> None:
    """Run a command, and retry it, because a machine that was just switched off stays locked for a moment."""
    until(
        f"`VBoxManage {words[0]}`", lambda: run(["VBoxManage", *words]), timeout=20, interval=0.5, retry_on=(HostError,)
    )
