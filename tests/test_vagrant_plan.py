"""The properties of the virtual machines, without any machine."""

from pathlib import Path

import pytest
from small_specs import one_node

from swarmer.ledger import Ledger
from swarmer.stacks.vagrant.acceleration import BY_HARDWARE, Acceleration
from swarmer.stacks.vagrant.stack import VagrantStack
from swarmer.state import ClusterHome


@pytest.mark.parametrize(("found", "processors"), [(BY_HARDWARE, 2), (Acceleration("tcg", 20.0), 1)])
def test_an_emulated_machine_has_one_processor(
    found: Acceleration, processors: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWARMER_HOME", str(tmp_path))
    spec = one_node(stack="vagrant")
    stack = VagrantStack(Ledger(ClusterHome(spec.stack, spec.dc), spec=spec, image=""))
    assert spec.servers[0].cpus == 2
    assert [machine.cpus for machine in stack.plan(found, 1).machines] == [processors]
