"""Whether hardware acceleration works on this machine, and how much slower virtual machines are without it.

`/dev/kvm` alone isn't proof: on some hosts it can be opened, but guests hang. So the probe boots the node's kernel with
only its initrd. The time until the kernel starts init is also the measure of slowness.
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

from swarmer import interrupts
from swarmer.errors import HostError
from swarmer.image import Image
from swarmer.state import cache_home

#: The last line that the kernel prints before the first program runs.
_STARTED: Final = re.compile(rb"Run /init as init process")

_KVM: Final = "/dev/kvm"

#: Seconds that the boot takes with hardware acceleration on an idle, recent machine.
_NORMAL_BOOT: Final = 1.0

#: Seconds after which the guest certainly hangs: accelerated, and emulated.
_BOOT_TIMEOUT: Final = {"kvm": 15.0, "tcg": 120.0}


@dataclass(frozen=True)
class Acceleration:
    """How virtual machines run on this machine.

    Attributes:
        accelerator: `kvm`; `tcg`, which emulates; or `hardware` for another hypervisor.
        boot_seconds: the time that the kernel took to boot.
    """

    accelerator: str
    boot_seconds: float

    @property
    def emulated(self) -> bool:
        """Whether machines run without hardware acceleration."""
        return self.accelerator == "tcg"

    def slowness(self, machines: int) -> float:
        """The factor by which deadlines are multiplied, for this many machines with one busy processor each."""
        contention = max(1.0, machines / (os.cpu_count() or 1))
        return round(max(1.0, self.boot_seconds / _NORMAL_BOOT) * (contention if self.emulated else 1.0), 1)


#: For a hypervisor that requires hardware acceleration, and for the plan of machines that aren't being created.
BY_HARDWARE: Final = Acceleration("hardware", _NORMAL_BOOT)


def probed(image: Image) -> Acceleration:
    """How virtual machines run on this machine; probed once per boot of the machine and per kernel.

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
    with suppress(PermissionError):  # root may have created the file
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
        "virtual machines don't boot on this host, not even emulated ones",
        hint="check the output of `qemu-system-x86_64 -accel tcg`, or use --stack=nspawn",
    )


def _may_use_kvm() -> bool:
    return os.access(_KVM, os.R_OK | os.W_OK)


def kvm_permission_hint() -> str:
    """A hint for a user who lacks permission for an existing /dev/kvm; empty otherwise."""
    if not Path(_KVM).exists() or _may_use_kvm():
        return ""
    return f"{_KVM} exists, but you don't have permission to use it: `sudo usermod -aG kvm $USER`"


def _boot_folder(image: Image) -> Path:
    """The folder of the kernel, in the topmost layer that has one; another kernel has another folder."""
    return next(folder for root in reversed(image.roots) if (folder := root / "boot/vmlinuz").exists()).parent


def _boot(accelerator: str, folder: Path) -> float | None:
    """Seconds until the kernel starts init, or None if it hangs or the accelerator doesn't work."""
    words = ["-machine", f"q35,accel={accelerator}", "-m", "256", "-display", "none", "-nic", "none", "-no-reboot"]
    words += ["-kernel", str(folder / "vmlinuz"), "-initrd", str(folder / "initrd.img")]
    words += ["-cpu", "max" if accelerator == "tcg" else "host", "-append", "console=ttyS0 panic=-1"]
    with tempfile.TemporaryDirectory(prefix="swarmer-probe-") as temporary:
        console = Path(temporary, "console")
        start = time.monotonic()
        with subprocess.Popen(
            # QEMU may hang, so it must not outlive this process.
            ["setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", *words, "-serial", f"file:{console}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                while time.monotonic() - start < _BOOT_TIMEOUT[accelerator]:
                    if console.exists() and _STARTED.search(console.read_bytes()):
                        return time.monotonic() - start
                    if process.poll() is not None:
                        return None
                    interrupts.sleep(0.05)
                return None
            finally:
                process.kill()
