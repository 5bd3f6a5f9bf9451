"""VirtualBox, by way of VBoxManage: the power of machines that Vagrant made, and their end."""

import re

from swarmer.errors import HostError
from swarmer.shell import run
from swarmer.wait import until


def machines() -> list[str]:
    """The names of all machines, switched on or not."""
    return re.findall(r'^"(.*)" \{', run(["VBoxManage", "list", "vms"]).stdout, re.MULTILINE)


def running(machine: str) -> bool:
    """Whether it is switched on."""
    said = run(["VBoxManage", "showvminfo", machine, "--machinereadable"], check=False).stdout
    return 'VMState="running"' in said.splitlines()


def start(machine: str) -> None:
    """Switch it on."""
    _once_unlocked("startvm", machine, "--type", "headless")


def pull_the_plug(machine: str) -> None:
    """Switch it off at once; one that is off, or isn't there, stays so."""
    run(["VBoxManage", "controlvm", machine, "poweroff"], check=False)


def remove(machine: str) -> None:
    """Switch it off and forget it with its disks; it need not be there."""
    pull_the_plug(machine)
    if machine in machines():
        _once_unlocked("unregistervm", machine, "--delete")


def _once_unlocked(*words: str) -> None:
    """Run a command; a machine that was just switched off stays locked for a moment."""
    until(
        f"`VBoxManage {words[0]}`", lambda: run(["VBoxManage", *words]), timeout=20, interval=0.5, retry_on=(HostError,)
    )
