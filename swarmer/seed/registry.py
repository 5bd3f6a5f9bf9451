"""The seed data of the private registry; the rest of it is in `image/rootfs/`.

Every node receives what it needs to pull, where docker looks for it. A registry node also receives what it needs to
answer.

Sources: docker's page on certificates of registries (`certs.d`); `image/rootfs/etc/nginx/nginx.conf`.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Final

from swarmer.node.registry.settings import FOLDER, derived
from swarmer.ports import REGISTRY
from swarmer.secrets.authority import Authority
from swarmer.secrets.client_files import Plane
from swarmer.secrets.credentials import REGISTRY_PASSWORD, REGISTRY_SECRET, Credentials
from swarmer.secrets.identities import registry_client, registry_identity
from swarmer.secrets.issuer import organization
from swarmer.seed import registry_s3
from swarmer.spec import Server, Spec

_CONFIGURATION: Final = f"{FOLDER}/config.yml"

#: The user that may push with the password of the cluster.
USER: Final = "swarmer"

_PRIVATE: Final = "0600"
_PUBLIC: Final = "0644"

#: Path on the node to content and mode.
Files = Mapping[str, tuple[str, str]]


def files(spec: Spec, server: Server, authority: Authority, credentials: Credentials) -> Files:
    """The files of one node."""
    where = {"node": server.name, "dc": spec.dc, "stack": spec.stack}
    client = registry_client(authority, **where)
    bundle = authority.bundle(Plane.REGISTRY).decode()
    trust = f"/etc/docker/certs.d/{spec.registry_host}"
    puller = {
        f"{trust}/ca.crt": (bundle, _PUBLIC),
        f"{trust}/client.cert": (client.certificate.decode(), _PUBLIC),
        f"{trust}/client.key": (client.key.decode(), _PRIVATE),
    }
    if server not in spec.registry_nodes:
        return puller
    identity = registry_identity(authority, **where, ip=server.ip)
    return puller | {
        f"{FOLDER}/ca.pem": (bundle, _PUBLIC),
        f"{FOLDER}/node.pem": (identity.certificate.decode(), _PUBLIC),
        f"{FOLDER}/node-key.pem": (identity.key.decode(), _PRIVATE),
        f"{FOLDER}/client.pem": (client.certificate.decode(), _PUBLIC),
        f"{FOLDER}/client-key.pem": (client.key.decode(), _PRIVATE),
        f"{FOLDER}/nginx.conf": (_nginx(spec, server), _PUBLIC),
        f"{FOLDER}/environment": (_environment(spec, credentials), _PRIVATE),
        **_configuration(spec),
        f"{FOLDER}/registry.json": (_settings(spec, server, credentials), _PRIVATE),
    }


def _nginx(spec: Spec, server: Server) -> str:
    name = spec.registry_host.partition(":")[0]
    return f"listen {server.ip}:{REGISTRY.number} ssl;\nserver_name {name};\nproxy_ssl_name {name};\n"


def _environment(spec: Spec, credentials: Credentials) -> str:
    """The environment of docker-registry. Its secret is the same on all nodes, so an upload can continue on any."""
    variables = {"REGISTRY_HTTP_SECRET": derived(credentials.tokens[REGISTRY_SECRET], "uploads")}
    if spec.registry.storage == "s3":
        variables |= {"CONFIGURATION": _CONFIGURATION, **registry_s3.environment(spec.registry)}
    return "".join(f"{name}={value}\n" for name, value in variables.items())


def _configuration(spec: Spec) -> Files:
    """The configuration file that replaces that of the image, if another storage is used."""
    if spec.registry.storage == "filesystem":
        return {}
    return {_CONFIGURATION: (registry_s3.configuration(spec.registry), _PUBLIC)}


def _settings(spec: Spec, server: Server, credentials: Credentials) -> str:
    settings = {
        "name": server.name,
        "nodes": {node.name: str(node.ip) for node in spec.registry_nodes},
        "domain": spec.domain,
        "storage": spec.registry.storage,
        "organization": organization(spec.name),
        "user": USER,
        "password_sha256": hashlib.sha256(credentials.tokens[REGISTRY_PASSWORD].encode()).hexdigest(),
        "secret": credentials.tokens[REGISTRY_SECRET],
    }
    return json.dumps(settings, indent=1) + "\n"
