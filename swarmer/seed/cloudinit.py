"""Seed data: the whole configuration of one node, in the format of cloud-init's NoCloud source."""

import io
import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from swarmer.secrets.authority import Authority
from swarmer.secrets.client_files import Plane
from swarmer.secrets.credentials import Credentials, consul_tokens
from swarmer.secrets.identities import consul_identity
from swarmer.secrets.ssh_key import KeyPair
from swarmer.seed import consul as consul_config
from swarmer.seed import dns as node_dns
from swarmer.seed import docker as docker_config
from swarmer.seed import registry as registry_config
from swarmer.seed.environment import NodeEnvironment
from swarmer.spec import ConsulRole, Server, Spec

#: Written last, because its appearance starts the node's services (`swarmer.path`).
NODE_FACTS: Final = "/etc/swarmer/node.json"

#: If it exists, the rest of the node starts only after consul has formed (`swarmer-consul-first.service`).
CONSUL_FIRST: Final = "/etc/swarmer/consul-first"


@dataclass(frozen=True)
class SeedData:
    """The three documents of a NoCloud seed. They contain secrets, so write them to files with mode 0600.

    Attributes:
        user_data: `#cloud-config` YAML.
        meta_data: JSON with `instance-id` and `local-hostname`.
        network_config: network configuration, version 2.
    """

    user_data: str
    meta_data: str
    network_config: str

    def __repr__(self) -> str:
        return f"SeedData({self.meta_data})"

    def files(self) -> Mapping[str, str]:
        """File name to content."""
        return {
            "user-data": self.user_data,
            "meta-data": self.meta_data,
            "network-config": self.network_config,
        }


def seed_data(
    spec: Spec,
    server: Server,
    *,
    authority: Authority,
    credentials: Credentials,
    login: KeyPair,
    host_key: KeyPair,
    consul_version: tuple[int, ...],
    environment: NodeEnvironment,
) -> SeedData:
    """Create the seed data of one node.

    Args:
        login: the key that may log in as root; only its public half is used.
        host_key: the node's SSH host key.
        consul_version: the version in the image, which decides the syntax of consul's configuration.
        environment: the part that the stack decides.
    """
    files = [_file(CONSUL_FIRST, "")] if environment.consul_first else []
    files += _files(spec, server, authority, credentials, consul_version, environment)
    return SeedData(
        user_data="#cloud-config\n"
        + _yaml(
            {
                "ssh_authorized_keys": [login.public],
                "ssh_keys": {"ed25519_private": host_key.private, "ed25519_public": host_key.public},
                "write_files": files,
            }
        ),
        meta_data=json.dumps({"instance-id": f"{server.name}-{uuid.uuid4()}", "local-hostname": server.name}) + "\n",
        network_config=_yaml(environment.network),
    )


def _files(
    spec: Spec,
    server: Server,
    authority: Authority,
    credentials: Credentials,
    consul_version: tuple[int, ...],
    environment: NodeEnvironment,
) -> list[dict[str, str]]:
    is_server = server.consul is ConsulRole.SERVER
    identity = consul_identity(
        authority, node=server.name, dc=spec.dc, stack=spec.stack, ip=server.ip, server=is_server
    )
    config = consul_config.render(spec, server, credentials, version=consul_version, slowness=environment.slowness)
    folder = consul_config.FOLDER
    files = [
        # Only root: the user with the publicly known key (image/machine) is for boxes without seed data.
        _file("/etc/ssh/sshd_config.d/10-listen.conf", f"ListenAddress {server.ip}\nAllowUsers root\n"),
        # Consul verifies its clients against the plane's CA alone; OpenSSL (Python, curl) requires the root as well.
        _file(f"{folder}/ca.pem", authority.plane_bundle(Plane.CONSUL).decode()),
        _file(f"{folder}/ca-chain.pem", authority.bundle(Plane.CONSUL).decode()),
        _file(f"{folder}/node.pem", identity.certificate.decode()),
        _file(f"{folder}/node-key.pem", identity.key.decode(), mode="0640", owner="root:consul"),
        _file(f"{folder}/consul.json", _json(config), mode="0640", owner="root:consul"),
    ]
    files += [_file(path, content) for path, content in environment.port_rules.items()]
    files += [_file(path, content) for path, content in node_dns.files(spec, server, environment.resolvers).items()]
    files += [_file(path, content) for path, content in docker_config.files(spec, server).items()]
    public, key = docker_config.certificates(authority, spec, server)
    files += [_file(path, content) for path, content in public.items()]
    files.append(_file(f"{docker_config.FOLDER}/node-key.pem", key, mode="0600"))
    files += [
        _file(path, content, mode=mode)
        for path, (content, mode) in registry_config.files(spec, server, authority, credentials).items()
    ]
    for service, name in consul_tokens(server).items():
        files.append(_file(f"/etc/swarmer/tokens/{service}", f"{credentials.tokens[name]}\n", mode="0600"))
    if is_server:
        files.append(_file("/etc/swarmer/acl.json", _json(_rules(spec, credentials)), mode="0600"))
    facts = {
        "name": server.name,
        "dc": spec.dc,
        "stack": spec.stack,
        "ip": str(server.ip),
        "consul": str(server.consul),
        "swarm": str(server.swarm),
        "slowness": environment.slowness,
        "labels": dict(server.labels),
    }
    files.append(_file(NODE_FACTS, _json(facts)))
    return files


def _rules(spec: Spec, credentials: Credentials) -> dict[str, Any]:
    """What the consul servers need to register the tokens of all nodes; read by `swarmer.node.acl`."""
    return {
        "management": credentials.management_token,
        "tokens": [
            {"node": server.name, "service": service, "secret": credentials.tokens[name]}
            for server in spec.servers
            for service, name in consul_tokens(server).items()
        ],
    }


def _file(path: str, content: str, *, mode: str = "0644", owner: str = "root:root") -> dict[str, str]:
    return {"path": path, "permissions": mode, "owner": owner, "content": content}


def _json(value: object) -> str:
    return json.dumps(value, indent=1) + "\n"


def _yaml(value: object) -> str:
    from ruamel.yaml import YAML  # a slow import that only creating seed data needs

    yaml = YAML()
    yaml.width = 4096
    stream = io.StringIO()
    yaml.dump(_literal(value), stream)
    return stream.getvalue()


def _literal(value: object) -> object:
    """Convert multi-line strings to YAML literal blocks, so that rendered seed data is human-readable.

    Digits with colons, such as some MAC addresses, are quoted: cloud-init reads YAML 1.1, in which they are numbers to
    the base 60.
    """
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString, LiteralScalarString

    if isinstance(value, dict):
        return {key: _literal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_literal(item) for item in value]
    if isinstance(value, str) and "\n" in value:
        return LiteralScalarString(value)
    if isinstance(value, str) and re.fullmatch(r"[0-9:]+", value):
        return DoubleQuotedScalarString(value)
    return value
