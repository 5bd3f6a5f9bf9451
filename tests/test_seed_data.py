"""Seed data of any spec: accepted by the cloud-init and consul of the image, and different for each node."""

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from strategies import specs

from swarmer import image
from swarmer.image import Image
from swarmer.ledger import Ledger
from swarmer.secrets.authority import Authority
from swarmer.secrets.credentials import Credentials, token_names
from swarmer.secrets.ssh_key import KeyPair
from swarmer.seed import consul as consul_config
from swarmer.seed import docker as docker_config
from swarmer.seed.cloudinit import NODE_FACTS, SeedData, seed_data
from swarmer.spec import Server, Spec
from swarmer.stacks import stack_of
from swarmer.state import ClusterHome

#: Programs of the image run in it, in a mount namespace that ends with them.
IN_IMAGE = """
set -eu
mount --make-rprivate /
mount -t tmpfs tmpfs "$WORK"
mkdir "$WORK/upper" "$WORK/work" "$WORK/root"
mount -t overlay overlay -o "lowerdir=$LOWERDIR,upperdir=$WORK/upper,workdir=$WORK/work" "$WORK/root"
mkdir "$WORK/root/seed"
tar -C "$WORK/root/seed" -xf -
exec chroot "$WORK/root" sh -euc "$COMMAND"
"""

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

few = settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="running programs of the image needs root")


@pytest.fixture(scope="module")
def node_image() -> Image:
    found = image.find()
    assert found, "`make setup` builds the image"
    return found


@pytest.fixture(scope="module")
def login() -> KeyPair:
    return KeyPair.generate()


@pytest.fixture
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def seeds(spec: Spec, login: KeyPair, version: tuple[int, ...]) -> dict[str, SeedData]:
    """The seed data of every node of a spec, by name."""
    with tempfile.TemporaryDirectory() as folder:
        authority = Authority.create(Path(folder), spec)
        credentials = Credentials.create(Path(folder, "credentials.json"), token_names(spec))
        return {
            server.name: seed_data(
                spec,
                server,
                authority=authority,
                credentials=credentials,
                login=login,
                host_key=login,
                consul_version=version,
                environment=stack_of(
                    Ledger(ClusterHome("nspawn", spec.dc), spec=spec.with_stack("nspawn"), image="")
                ).environment(server),
            )
            for server in spec.servers
        }


def in_image(node_image: Image, folder: Path, files: dict[str, str], command: str) -> None:
    """Run a shell command in the image, with files in /seed; it must succeed."""
    content, work = folder / "content", folder / "work"
    content.mkdir()
    work.mkdir()
    for name, text in files.items():
        (content / name).write_text(text)
    packed = subprocess.run(["tar", "-C", str(content), "-c", "."], capture_output=True, check=True).stdout
    variables = {"WORK": str(work), "LOWERDIR": node_image.lowerdir, "COMMAND": command}
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", IN_IMAGE],
        input=packed,
        capture_output=True,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **variables},
        timeout=120,
    )
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()


@needs_root
@few
@given(spec=specs(max_servers=3))
def test_cloud_init_of_the_image_accepts_every_seed(node_image: Image, login: KeyPair, spec: Spec) -> None:
    files = {
        f"{name}.{kind}": content
        for name, seed in seeds(spec, login, node_image.consul_version).items()
        for kind, content in seed.files().items()
        if kind != "meta-data"
    }
    command = """
        for file in /seed/*.user-data; do cloud-init schema --config-file "$file"; done
        for file in /seed/*.network-config; do
            cloud-init schema --schema-type network-config --config-file "$file"
        done
    """
    with tempfile.TemporaryDirectory() as folder:
        in_image(node_image, Path(folder), files, command)


@needs_root
def test_cloud_init_of_the_image_refuses_invalid_seed_data(node_image: Image, scratch: Path) -> None:
    wrong = {"wrong.user-data": "#cloud-config\nusers: 7\n"}
    with pytest.raises(AssertionError, match=r"(?i)invalid"):
        in_image(node_image, scratch, wrong, "cloud-init schema --config-file /seed/wrong.user-data")


@needs_root
@few
@given(spec=specs(max_servers=3))
def test_consul_of_the_image_accepts_every_configuration(node_image: Image, login: KeyPair, spec: Spec) -> None:
    configs = {
        f"{name}.json": files_of(seed)[f"{consul_config.FOLDER}/consul.json"]
        for name, seed in seeds(spec, login, node_image.consul_version).items()
    }
    command = "for file in /seed/*.json; do consul validate -quiet /etc/consul.d/node.json $file; done"
    with tempfile.TemporaryDirectory() as folder:
        in_image(node_image, Path(folder), configs, command)


@needs_root
@few
@given(spec=specs(max_servers=3))
def test_docker_of_the_image_accepts_every_configuration(node_image: Image, login: KeyPair, spec: Spec) -> None:
    seed = next(iter(seeds(spec, login, node_image.consul_version).values()))
    names = ("ca.pem", "node.pem", "node-key.pem")
    files = {name: files_of(seed)[f"{docker_config.FOLDER}/{name}"] for name in names}
    files["daemon.json"] = files_of(seed)["/etc/docker/daemon.json"]
    command = f"""
        mkdir -p {docker_config.FOLDER} && cp /seed/*.pem {docker_config.FOLDER}
        dockerd --validate --config-file /seed/daemon.json
    """
    with tempfile.TemporaryDirectory() as folder:
        in_image(node_image, Path(folder), files, command)


@given(spec=specs(max_servers=5), version=st.sampled_from([(1, 8, 7), (1, 10, 0), (1, 12, 0), (1, 22, 1)]))
@settings(deadline=None, max_examples=20)
def test_each_node_gets_its_own_seed_data_and_only_servers_get_the_acl_rules(
    login: KeyPair, spec: Spec, version: tuple[int, ...]
) -> None:
    tokens: list[str] = []
    for server in spec.servers:
        files = files_of(seeds_of_one := seeds(spec, login, version)[server.name])
        assert json.loads(seeds_of_one.meta_data)["local-hostname"] == server.name
        # Its appearance starts the services, which need all other files.
        assert list(files)[-1] == NODE_FACTS
        config: dict[str, Any] = json.loads(files[f"{consul_config.FOLDER}/consul.json"])
        assert ("/etc/swarmer/acl.json" in files) == config["server"] == (server in spec.consul_servers)
        # The registry's records are written with it, and every consul server is a registry node.
        assert ("/etc/swarmer/tokens/registry" in files) == config["server"]
        assert config["retry_join"] == [str(peer.ip) for peer in spec.consul_servers if peer != server]
        assert ("tls" in config) == (version >= (1, 12))
        assert config["ports"]["http"] == -1
        assert config["acl"]["default_policy"] == "deny"
        tokens += [content for path, content in files.items() if path.startswith("/etc/swarmer/tokens/")]
    assert len(set(tokens)) == len(tokens)


@given(spec=specs(max_servers=2))
@settings(deadline=None, max_examples=10)
def test_secrets_are_readable_by_their_service_only(login: KeyPair, spec: Spec) -> None:
    for seed in seeds(spec, login, (1, 8, 7)).values():
        for file in YAML(typ="safe").load(seed.user_data)["write_files"]:
            # Tokens are UUIDs; the word `secret` isn't a criterion, since a label of the spec may contain it.
            secret = "PRIVATE KEY" in file["content"] or UUID.search(file["content"])
            assert not secret or file["permissions"] in ("0600", "0640"), file["path"]
            assert "PRIVATE KEY" not in repr(seed)


def files_of(seed: SeedData) -> dict[str, str]:
    """Path on the node to content."""
    return {file["path"]: file["content"] for file in YAML(typ="safe").load(seed.user_data)["write_files"]}


def test_a_node_without_internet_gets_no_default_route(login: KeyPair) -> None:
    servers = (Server(name="one", memory=512, cpus=1, ip="10.0.0.2", consul="server", swarm="both"),)  # type: ignore[arg-type]
    for internet in (True, False):
        spec = Spec(admin_network="10.0.0.0/24", stack="nspawn", dc="dev", servers=servers, internet=internet)  # type: ignore[arg-type]
        network = YAML(typ="safe").load(seeds(spec, login, (1, 8, 7))["one"].network_config)
        assert ("routes" in network["ethernets"]["host0"]) == internet
