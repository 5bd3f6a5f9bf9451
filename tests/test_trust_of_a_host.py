"""A host that trusts a cluster: its docker pushes and pulls, and its other programs know the registry.

The host is a mount namespace of this machine, in which its `/etc` may be written to without a change outside. Its
docker is the engine of the node image, with the `/etc` of the host in place of its own.
"""

import os
import shutil
import sys

import pytest
from harness import Harness, servers_yml

from swarmer import image

REGISTRY = "registry.service.harness.nspawn"
NODE = "10.97.4.11"

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="a cluster, and a host to play with, need root"),
    pytest.mark.skipif(not shutil.which("update-ca-certificates"), reason="this host has no package ca-certificates"),
]

ASK = f"""
import urllib.request
try:
    urllib.request.urlopen("https://{REGISTRY}:5000/v2/")
except Exception as error:
    print(error)
"""

#: Arguments: an empty folder; the layers of the image.
SCRIPT = f"""
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
cd "$1"
written_to() {{
    mkdir -p "upper$1" "work$1" "$3"
    mount -t overlay overlay -o "lowerdir=$2,upperdir=upper$1,workdir=work$1" "$3"
}}
written_to 1 /etc /etc
written_to 2 /usr/local/share/ca-certificates /usr/local/share/ca-certificates
written_to 3 "$2" engine
mount --bind /etc engine/etc
for shared in dev proc sys; do mount --rbind /$shared engine/$shared; done
mount -t tmpfs tmpfs engine/run
echo {NODE} {REGISTRY} >>/etc/hosts

docker() {{ chroot engine docker "$@" 2>&1; }}
swarmer() {{ {sys.executable} -m swarmer "$@"; }}
look() {{
    echo "python $1: $({sys.executable} -c '{ASK}')"
    docker pull --quiet {REGISTRY}:5000/host/image:1 >said && status=pulled || status=refused
    echo "docker $1: $status, $(cat said)"
}}
chroot engine dockerd --bridge=none --iptables=false --ip6tables=false >dockerd.log 2>&1 &
for _ in $(seq 300); do docker version >/dev/null && break || sleep 0.1; done
docker version >/dev/null || cat dockerd.log

look before
swarmer trust
tar --create --directory=/etc passwd | docker import - {REGISTRY}:5000/host/image:1
docker push --quiet {REGISTRY}:5000/host/image:1
docker rmi {REGISTRY}:5000/host/image:1
look between
docker rmi {REGISTRY}:5000/host/image:1
swarmer trust --undo
look after
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What came of asking the registry, by `WHO WHEN`."""
    folder, below = tmp_path_factory.mktemp("trust"), image.find()
    assert below, "`make test` builds the image first"
    person = Harness(folder)
    person.describe(servers_yml("10.97.4"))
    up = person.swarmer("up")
    assert up.returncode == 0, up.stdout
    (folder / "host").mkdir()
    words = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", SCRIPT, "sh"]
    try:
        said = person.run(*words, str(folder / "host"), below.lowerdir).stdout
    finally:
        person.swarmer("down")
    print(said)
    return dict(line.split(": ", 1) for line in said.splitlines() if line.startswith(("python ", "docker ")))


def test_its_docker_pulls_what_it_pushed_until_that_is_undone(told: dict[str, str]) -> None:
    assert told["docker between"] == f"pulled, {REGISTRY}:5000/host/image:1"
    for when in ("before", "after"):
        assert told[f"docker {when}"].startswith("refused"), when
        assert "certificate signed by unknown authority" in told[f"docker {when}"]


def test_its_other_programs_know_the_registry_until_that_is_undone(told: dict[str, str]) -> None:
    assert told["python between"] == "HTTP Error 401: Unauthorized", "the certificate is known; who asks is not"
    for when in ("before", "after"):
        assert "certificate verify failed" in told[f"python {when}"]
