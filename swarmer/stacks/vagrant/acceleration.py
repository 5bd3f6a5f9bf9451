"""Whether this machine runs virtual ones by hardware, and how much slower they are where it doesn't.

`/dev/kvm` alone says little: on some hosts it opens, and guests hang. So the node's own kernel is booted, with nothing
but its initrd. How long the kernel takes until it is done with itself is the measure of slowness, too.
"""

import json
import os
import re
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from swarmer.errors import HostError
from swarmer.image import Image
from swarmer.state import cache_home

#: What the kernel prints last before the first program runs.
_STARTED: Final = re.compile(rb"Run /init as init process")

_KVM: Final = "/dev/kvm"

#: Seconds this takes where hardware helps, on an idle machine of today.
_USUAL: Final = 1.0

#: Seconds after which the guest hangs for certain: by hardware, and emulated.
_PATIENCE: Final = {"kvm": 15.0, "tcg": 120.0}


@dataclass(frozen=True)
class Acceleration:
    """How virtual machines run here.

    Attributes:
        accelerator: `kvm`; or `tcg`, which emulates; or another hypervisor's `hardware`.
        boot_seconds: how long the kernel took.
    """

    accelerator: str
    boot_seconds: float

    @property
    def emulated(self) -> bool:
        """Whether no hardware helps."""
        return self.accelerator == "tcg"

    def slowness(self, machines: int) -> float:
        """The factor by which deadlines grow, for so many machines with one busy processor each."""
        crowd = max(1.0, machines / (os.cpu_count() or 1))
        return round(max(1.0, self.boot_seconds / _USUAL) * (crowd if self.emulated else 1.0), 1)


#: What a hypervisor gives that can't do without; and a plan of machines that nobody makes yet.
BY_HARDWARE: Final = Acceleration("hardware", _USUAL)


def probed(image: Image) -> Acceleration:
    """How virtual machines run here; found out once for each boot of this machine, and each kernel.

    Raises:
        HostError: they don't run at all.
    """
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    known = cache_home() / "acceleration.json"
    folder = _boot_folder(image)
    key = f"{boot_id} {folder} {_may_use_kvm()}"
    try:
        facts = json.loads(known.read_text())
        if facts.pop("key") == key:
            return Acceleration(**facts)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    found = _probe(folder)
    with suppress(PermissionError):  # it may have been root who made it
        known.parent.mkdir(parents=True, exist_ok=True)
        known.write_text(json.dumps({"key": key, **asdict(found)}))
    return found


def _probe(folder: Path) -> Acceleration:
    for accelerator in ("kvm", "tcg"):
        if accelerator == "kvm" and not _may_use_kvm():
            continue
        seconds = _boot(accelerator, folder)
        if seconds is not None:
            return Acceleration(accelerator, round(seconds, 2))
    raise HostError(
        "no virtual machine boots on this host, not even an emulated one",
        hint="see what `qemu-system-x86_64 -accel tcg` says, or use --stack=nspawn",
    )


def _may_use_kvm() -> bool:
    return os.access(_KVM, os.R_OK | os.W_OK)


def kvm_permission_hint() -> str:
    """A sentence for who could have hardware help, had they the right to; empty for others."""
    if not Path(_KVM).exists() or _may_use_kvm():
        return ""
    return f"{_KVM} is there, but not for you, so nobody could see whether it works: `sudo usermod -aG kvm $USER`"


def _boot_folder(image: Image) -> Path:
    """Where the kernel is, in whichever layer; another kernel is in another one."""
    return next(folder for root in reversed(image.roots) if (folder := root / "boot/vmlinuz").exists()).parent


def _boot(accelerator: str, folder: Path) -> float | None:
    """Seconds until the kernel is up, or None when it hangs or the accelerator refuses."""
    words = ["-machine", f"q35,accel={accelerator}", "-m", "256", "-display", "none", "-nic", "none", "-no-reboot"]
    words += ["-kernel", str(folder / "vmlinuz"), "-initrd", str(folder / "initrd.img")]
    words += ["-cpu", "max" if accelerator == "tcg" else "host", "-append", "console=ttyS0 panic=-1"]
    with tempfile.TemporaryDirectory(prefix="swarmer-probe-") as temporary:
        console = Path(temporary, "console")
        start = time.monotonic()
        with subprocess.Popen(
            # It may hang, so it must not outlive us.
            ["setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", *words, "-serial", f"file:{console}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                while time.monotonic() - start < _PATIENCE[accelerator]:
                    if console.exists() and _STARTED.search(console.read_bytes()):
                        return time.monotonic() - start
                    if process.poll() is not None:
                        return None
                    time.sleep(0.05)
                return None
            finally:
                process.kill()
