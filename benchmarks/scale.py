"""What a small push costs when the registry already holds so many manifests.

    sudo .venv/bin/python benchmarks/scale.py --sizes 0,1000,5000,20000

For each size, the registry is filled up to it with manifests of one configuration and two layers each: the files are
written to where docker-registry has them, on every node, and the records into consul. The nodes are told by a change
that continues nothing that they know, so each looks at everything. Then small images are pushed (a configuration, a
layer of 20 kB, and a manifest), and this prints, for each size:

    look        seconds until every node knows and has everything
    push, PUT   medians of a whole push in milliseconds, and of its last request, for the manifest
    processor   of `swarmer-registry` on all nodes together, milliseconds for each push
    memory      of `swarmer-registry`, of the node where it takes most, MiB
    consul      bytes that consul holds for the registry, for each manifest
"""

import re
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from typing import Final

import click

from swarmer import lifecycle
from swarmer.clients import registry_client
from swarmer.clients.registry_client import Image
from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.errors import SwarmerError
from swarmer.spec.file import load

_UNIT: Final = "swarmer-registry.service"
_GROUP: Final = f"/sys/fs/cgroup/system.slice/{_UNIT}"

#: Runs on every node: the same content everywhere, made of the number of each manifest.
_FILL: Final = r"""
import hashlib, json, os, shutil, sys
from pathlib import Path
tree = Path("/var/lib/docker-registry/docker/registry/v2")
first, last = int(sys.argv[1]), int(sys.argv[2])
def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
def digest(content):
    return hashlib.sha256(content).hexdigest()
def put(repository, kind, content):
    name = digest(content)
    write(tree / "blobs/sha256" / name[:2] / name / "data", content)
    write(tree / "repositories" / repository / kind / "sha256" / name / "link", f"sha256:{name}".encode())
    return {"digest": f"sha256:{name}", "size": len(content)}
records = []
for number in range(first, last):
    repository = f"scale/{number % 100:03}"
    config = put(repository, "_layers", json.dumps({"number": number}).encode())
    layers = [put(repository, "_layers", f"{number} {layer} ".encode() * 20) for layer in (1, 2)]
    kind = "application/vnd.oci.image.manifest.v1+json"
    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": kind,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **config},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", **layer} for layer in layers],
    }).encode()
    put(repository, "_manifests/revisions", manifest)
    records.append([repository, f"sha256:{digest(manifest)}", kind, len(manifest), f"tag-{number}"])
os.system("chown -R --reference=/var/lib/docker-registry /var/lib/docker-registry/docker && sync")
Path("/run/scale.json").write_text(json.dumps(records))
"""

#: Runs on one node, after that.
_RECORD: Final = r"""
import json, secrets
from dataclasses import asdict
from swarmer.node.consul_agent import Agent, own_token
from swarmer.node.registry.journal import CHANGED, Position
from swarmer.node.registry.records import TAGS, Manifest, _encoded
agent = Agent(own_token("registry"), timeout=30)
def put(key, value):
    return {"KV": {"Verb": "set", "Key": key, "Value": _encoded(value)}}
steps = []
for repository, digest, kind, size, tag in json.load(open("/run/scale.json")):
    steps.append(put(Manifest(repository, digest, kind, size).key, asdict(Manifest(repository, digest, kind, size))))
    steps.append(put(f"{TAGS}{repository}:{tag}", {"digest": digest, "type": kind, "size": size}))
for start in range(0, len(steps), 64):
    agent.call("PUT", "txn", steps[start : start + 64])
former = agent.ask("GET", f"kv/{CHANGED}")
number = Position.of(former.json()[0]).number if former.status == 200 else 0
agent.call("PUT", "txn", [put(CHANGED, asdict(Position(number + 100_000, secrets.token_hex(8))))])
entries = agent.ask("GET", "kv/registry/?recurse", timeout=120).json()
print(sum(len(entry["Key"]) + len(entry["Value"] or "") * 3 // 4 for entry in entries))
"""


@click.command()
@click.option("--servers", type=click.Path(path_type=Path), default=Path("servers.yml"), show_default=True)
@click.option("--sizes", default="0,1000,5000,20000", show_default=True, help="How many manifests there are.")
@click.option("--pushes", type=int, default=30, show_default=True, help="How many images are pushed at each size.")
def main(servers: Path, sizes: str, pushes: int) -> None:
    """Boot the cluster of SERVERS, fill its registry, and print what pushes cost."""
    owned = lifecycle.launch(load(servers))
    try:
        print(
            f"{'manifests':>10}{'look':>8}{'push':>8}{'PUT':>8}{'processor':>11}{'memory':>8}{'consul':>8}", flush=True
        )
        filled = 0
        for size in sorted(map(int, sizes.split(","))):
            look, held = _fill(owned.cluster, filled, size) if size > filled else (0.0, 0)
            filled = max(filled, size)
            print(f"{size:>10}{look:>8.1f}{_push(owned.cluster, pushes)}{held // (size or 1):>8}", flush=True)
    finally:
        owned.down()


def _fill(cluster: Cluster, first: int, last: int) -> tuple[float, int]:
    """Fill the registry; the seconds until all nodes have everything, and the bytes that consul holds."""
    for node in cluster.registry_nodes:
        node.succeed(f"python3 - {first} {last}", input=_FILL, timeout=1200)
    before = {node.name: _known(node) for node in cluster.registry_nodes}
    held = int(cluster.registry_nodes[0].succeed("cd / && python3 -", input=_RECORD, timeout=1200))
    start = time.monotonic()
    for node in cluster.registry_nodes:
        expected = before[node.name] + last - first
        cluster.until_equal(f"everything on {node.name}", partial(_known, node), expected, timeout=600)
    return time.monotonic() - start, held


def _known(node: Node) -> int:
    """The manifests that a node knows and has, by its own status; it reports that every ten seconds."""
    status = node.succeed(f"systemctl show --property=StatusText --value {_UNIT}")
    found = re.match(r"(\d+) manifests, 0 to be fetched", status)
    return int(found[1]) if found else -1


def _push(cluster: Cluster, count: int) -> str:
    """The figures of some pushes by a client of this host, at the leader."""
    client = registry_client.pusher(cluster, cluster.registry_leader().ip)
    client.push("small", "warm", Image.random(20_000))
    before = _processor(cluster)
    whole: list[float] = []
    last: list[float] = []
    for number in range(count):
        image = Image.random(20_000)
        start = time.monotonic()
        for digest, content in image.blobs.items():
            client.push_blob("small", digest, content)
        manifest = time.monotonic()
        client.put_manifest("small", f"tag-{number}", image.manifest)
        whole.append(time.monotonic() - start)
        last.append(time.monotonic() - manifest)
    time.sleep(2)  # the third node copies what the majority has
    used = (_processor(cluster) - before) / count
    memory = max(
        int(node.succeed(f"cat /sys/fs/cgroup/system.slice/{_UNIT}/memory.current")) for node in cluster.registry_nodes
    )
    return (
        f"{statistics.median(whole) * 1000:>8.0f}{statistics.median(last) * 1000:>8.0f}"
        f"{used * 1000:>11.0f}{memory / 2**20:>8.0f}"
    )


def _processor(cluster: Cluster) -> float:
    """Seconds of processor time that the registry's program has used on all nodes."""
    look = f"sed -n 's/usage_usec //p' {_GROUP}/cpu.stat"
    return sum(int(node.succeed(look)) for node in cluster.registry_nodes) / 1e6


if __name__ == "__main__":
    try:
        main()
    except SwarmerError as error:
        sys.exit(f"error: {error}")
