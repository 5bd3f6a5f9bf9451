"""The limits of the host's kernel that a large cluster may exceed."""

import ctypes
import os
import re
from pathlib import Path

import pytest

from swarmer.errors import HostError
from swarmer.stacks.nspawn import limits


def test_more_nodes_than_the_kernel_has_inotify_instances_for_are_refused_with_the_sysctl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = tmp_path / "max_user_instances"
    limit.write_text(f"{limits._used() + 48}\n")
    monkeypatch.setattr(limits, "_INSTANCES", limit)
    limits.check_inotify(5)
    with pytest.raises(HostError, match="100 nodes need 400 inotify instances") as refused:
        limits.check_inotify(100)
    found = re.search(r"sysctl fs\.inotify\.max_user_instances=(\d+)", refused.value.hint)
    assert found
    limit.write_text(found[1])
    limits.check_inotify(100)


@pytest.mark.skipif(os.geteuid() != 0, reason="counts the instances of root, which only root can look at")
def test_the_instances_in_use_are_counted() -> None:
    libc = ctypes.CDLL(None)
    before = limits._used()
    descriptors = [libc.inotify_init() for _ in range(20)]
    try:
        assert limits._used() >= before + 15  # other processes may have ended in the meantime
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
