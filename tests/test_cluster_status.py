"""The state of a cluster, as it is shown."""

from pathlib import Path

import pytest
from fake_node import FakeCluster

from swarmer import cluster_status, convergence
from swarmer.errors import NodeError
from swarmer.wait import NotYet


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    monkeypatch.setenv("SWARMER_HOME", str(tmp_path))
    fakes = FakeCluster()
    fakes.manage()
    for node in fakes.members:
        node.answers.append(("cloud-init/result.json", lambda: '{"v1": {"errors": []}}'))
    return fakes


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (NotYet("two of three voters"), "two of three voters"),
        (TimeoutError(), "TimeoutError"),
        (ConnectionError(), "ConnectionError"),
        (NodeError(""), "NodeError"),
    ],
)
def test_a_cluster_that_has_not_converged_is_unhealthy_and_has_a_reason(
    fakes: FakeCluster, monkeypatch: pytest.MonkeyPatch, error: Exception, problem: str
) -> None:
    def check(_: object) -> None:
        raise error

    monkeypatch.setattr(convergence, "check_converged", check)
    status = cluster_status.look(fakes)
    assert not status.healthy
    assert status.problem == problem
    assert str(status.certificates_end).startswith("2030-01-01")


def test_without_its_ca_a_cluster_is_unhealthy(fakes: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convergence, "check_converged", lambda _: None)
    fakes.without_ca = True
    status = cluster_status.look(fakes)
    assert (status.healthy, status.problem, status.certificates_end) == (False, "the CAs are missing", None)


def test_a_cluster_that_has_converged_is_healthy(fakes: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convergence, "check_converged", lambda _: None)
    fakes.members[2].on = False
    status = cluster_status.look(fakes)
    assert status.healthy
    assert status.problem == ""
    assert [(node.name, node.running) for node in status.nodes] == [
        ("node-1", True),
        ("node-2", True),
        ("node-3", False),
    ]
