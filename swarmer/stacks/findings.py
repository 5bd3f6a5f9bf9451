"""What a look at this machine finds: what works here, what doesn't, and why."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from swarmer.errors import HostError
from swarmer.spec import Spec
from swarmer.state import ClusterHome, cache_home

#: Free disk space that a first build of the image takes, and that nodes take until their first containers, in MiB.
_IMAGE_DISK: Final = 3000
_NODE_DISK: Final = 200


class Verdict(StrEnum):
    """What a finding means for a cluster on this machine."""

    OK = "ok"
    #: A cluster boots, but something doesn't work on it.
    LIMITED = "limited"
    #: No cluster boots.
    FAILS = "fails"
    #: It can't be found out.
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        subject: what it is, such as `control groups`.
        reason: why, or what was found.
        hint: what to do about it; empty if nothing is wrong.
    """

    subject: str
    verdict: Verdict
    reason: str
    hint: str = ""


def checked(subject: str, check: Callable[[], object], fine: str) -> Finding:
    """A finding from a check that raises `HostError` for what no cluster boots with.

    Args:
        fine: the reason if it raises nothing.
    """
    try:
        check()
    except HostError as error:
        return Finding(subject, Verdict.FAILS, error.message, error.hint)
    return Finding(subject, Verdict.OK, fine)


def available_memory() -> int:
    """The memory of this machine that is available without swapping, in MiB."""
    memory = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(memory["MemAvailable"].split()[0]) // 1024


def memory(needed: int, what: str) -> Finding:
    """Whether so many MiB are available.

    Args:
        what: what needs them.
    """
    free = available_memory()
    if free >= needed:
        return Finding("memory", Verdict.OK, f"{free} MiB are available, and {what} need {needed}")
    hint = "list fewer servers, or end other programs"
    return Finding("memory", Verdict.LIMITED, f"{what} need {needed} MiB, but {free} are available", hint)


def processors(needed: int, what: str) -> Finding:
    """Whether this process may use so many processors.

    Args:
        what: what happens with fewer.
    """
    found = len(os.sched_getaffinity(0))
    if found >= needed:
        return Finding("processors", Verdict.OK, str(found))
    return Finding("processors", Verdict.LIMITED, f"{found}: {what}", f"use {needed} processors, or fewer servers")


def disks(spec: Spec, home: ClusterHome, *, image_built: bool) -> Iterator[Finding]:
    """Whether the folders of the cluster and of images have room."""
    wanted = (
        ("SWARMER_HOME", home.folder, _NODE_DISK * len(spec.servers)),
        ("SWARMER_CACHE", cache_home(), 0 if image_built else _IMAGE_DISK),
    )
    for variable, folder, needed in wanted:
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(existing).free >> 20
        subject, reason = f"disk of {variable}", f"{folder} has {free} MiB of free space"
        if free >= needed:
            yield Finding(subject, Verdict.OK, reason)
        else:
            hint = f"free some, or set {variable} to a folder on another disk"
            yield Finding(subject, Verdict.FAILS, f"{reason}, and needs {needed}", hint)
