"""Commands that need a spec but no cluster: render, schema."""

import tempfile
from pathlib import Path

import click

from swarmer import image
from swarmer.cli.common import print_json, spec_options
from swarmer.image.recipe import DEBIAN_CONSUL
from swarmer.ledger import Ledger
from swarmer.secrets.authority import Authority
from swarmer.secrets.credentials import Credentials, token_names
from swarmer.secrets.ssh_key import KeyPair
from swarmer.seed.cloudinit import seed_data
from swarmer.spec import Spec
from swarmer.spec.file import json_schema
from swarmer.stacks import stack_class, stack_of
from swarmer.state import ClusterHome


@click.command()
@click.argument("node")
@spec_options
def render(spec: Spec, node: str) -> None:
    """Print the cloud-init data of a node.

    Three YAML documents: user-data, meta-data, network-config. Secrets are masked; keys and certificates are
    generated for this output only. No cluster is needed or changed.

    \b
      swarmer render swarm-01
      swarmer render swarm-01 --stack vagrant
    """
    server = spec.server(node)
    found = image.find(stack_class(spec.stack).image_kind)
    if not found:
        click.echo("note: the image is not built yet; rendering for Debian's consul", err=True)
    stack = stack_of(Ledger(ClusterHome(spec.stack, spec.dc), spec=spec, image=""))
    for note in stack.notes():
        click.echo(f"note: {note}", err=True)
    with tempfile.TemporaryDirectory(prefix="swarmer-render-") as folder:
        credentials = Credentials.create(Path(folder, "credentials.json"), token_names(spec))
        seed = seed_data(
            spec,
            server,
            authority=Authority.create(Path(folder), spec),
            credentials=credentials,
            login=KeyPair.generate(),
            host_key=KeyPair.generate(),
            consul_version=found.consul_version if found else DEBIAN_CONSUL,
            environment=stack.environment(server),
        )
    for name, content in seed.files().items():
        click.echo(f"--- # {name}\n{credentials.mask(content)}", nl=False)


@click.command()
def schema() -> None:
    """Print the JSON schema of servers.yml, for editors and linters.

    \b
      swarmer schema > servers.schema.json
    """
    print_json(json_schema())
