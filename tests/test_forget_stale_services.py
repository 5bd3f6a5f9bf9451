"""What the agent of a node kept of its last boot: services of containers go, everything else stays."""

import json
from pathlib import Path

from swarmer.node.forget_stale_services import forget_files


def keep(folder: Path, kind: str, **content: object) -> Path:
    """A file as consul keeps it."""
    file = folder / kind / f"{len(list(folder.rglob('*')))}"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file


def test_services_of_containers_go_with_their_checks_and_all_else_stays(tmp_path: Path) -> None:
    ours = {"registrator": "box", "registrator-container": "0123456789ab"}
    gone = [
        keep(tmp_path, "services", Token="", Service={"ID": "box:web:80", "Service": "web", "Meta": ours}),
        keep(tmp_path, "checks", Check={"CheckID": "service:box:web:80", "ServiceID": "box:web:80"}),
    ]
    stay = [
        keep(tmp_path, "services", Service={"ID": "probe", "Meta": {"registrator": "elsewhere"}}),
        keep(tmp_path, "services", Service={"ID": "swarm", "Meta": None}),
        keep(tmp_path, "checks", Check={"CheckID": "service:swarm", "ServiceID": "swarm"}),
        keep(tmp_path, "checks", Check={"CheckID": "of-the-node", "ServiceID": ""}),
        keep(tmp_path, "checks/state", CheckID="service:box:web:80"),
    ]
    half = tmp_path / "services/half"
    half.write_text('{"Service": {"ID"')
    forget_files(tmp_path, "box")
    assert [file.exists() for file in gone] == [False, False]
    assert all(file.exists() for file in [*stay, half])


def test_an_agent_that_kept_nothing_is_left_alone(tmp_path: Path) -> None:
    forget_files(tmp_path, "box")
    assert list(tmp_path.iterdir()) == []
