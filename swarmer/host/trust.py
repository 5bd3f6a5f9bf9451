"""Making this host trust the certificates of a cluster, and undoing it.

docker reads the CA of a registry, and the client certificate for it, from a folder named after the registry. Other
programs use the system's trust store, which has a folder for additional CAs and a command that imports them.

Every file is recorded in `trust.json` in the cluster's folder before it is written. `remove` thus undoes it whenever a
process dies in between; the removal of a cluster does the same.

Sources: docker's page on certificates of registries; update-ca-certificates(8); update-ca-trust(8).
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Final

from swarmer.errors import HostError, SwarmerError, as_root, needs_root
from swarmer.files import write_private
from swarmer.secrets.authority import Authority
from swarmer.secrets.client_files import Plane
from swarmer.shell import run, which
from swarmer.state import ClusterHome, swarmer_home

_RECORD: Final = "trust.json"

#: Everything is written beneath it; tests use another one.
ROOT: Final = Path("/")

#: The folder with a folder for each registry, for docker.
_DOCKER: Final = "etc/docker/certs.d"

#: The folders for additional CAs, each with the command that imports them: Debian, Fedora, Arch, SUSE.
_STORES: Final = (
    ("usr/local/share/ca-certificates", ("update-ca-certificates",)),
    ("etc/pki/ca-trust/source/anchors", ("update-ca-trust",)),
    ("etc/ca-certificates/trust-source/anchors", ("update-ca-trust",)),
    ("etc/pki/trust/anchors", ("update-ca-certificates",)),
)


@dataclass(frozen=True)
class HostTrust:
    """What was changed on this host for one cluster.

    Attributes:
        files: the files that were written.
        folders: the folders that were created for them, outermost first.
        command: the command that imported the CA into the trust store; empty if no supported store was found.
        digests: file to the SHA-256 of its content, in hex; empty in the record of an older version.
    """

    files: tuple[str, ...]
    folders: tuple[str, ...]
    command: tuple[str, ...]
    digests: Mapping[str, str] = field(default_factory=dict)


def add(home: ClusterHome, authority: Authority, registry_host: str, *, root: Path = ROOT) -> HostTrust:
    """Make this host trust a cluster; replaces what an earlier call did.

    Raises:
        SwarmerError: the cluster has no client certificate; nothing is changed.
        HostError: this user lacks the rights; nothing is left changed.
    """
    remove(home)
    client = home.client(Plane.REGISTRY)
    folder = root / _DOCKER / registry_host
    try:
        contents = {
            folder / "ca.crt": authority.bundle(Plane.REGISTRY),
            folder / "client.cert": client.certificate.read_bytes(),
            folder / "client.key": client.key.read_bytes(),
        }
    except FileNotFoundError as error:
        raise SwarmerError(
            f"the client certificate of {home.name} is missing: {error.filename}",
            hint=f"`swarmer down {home.name}`, then `swarmer up` creates it again",
        ) from None
    command: tuple[str, ...] = ()
    for store, import_command in _STORES:
        if (root / store).is_dir() and which(import_command[0]):
            contents[root / store / f"swarmer-{home.stack}-{home.dc}-{home.tag}.crt"] = authority.root.pem
            command = import_command
            break
    folders = [path for path in reversed((folder, *folder.parents)) if not path.exists()]
    digests = {str(file): sha256(content).hexdigest() for file, content in contents.items()}
    made = HostTrust(tuple(digests), tuple(map(str, folders)), command, digests)
    home.make()
    write_private(_record(home), json.dumps(asdict(made), indent=1) + "\n")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, content in contents.items():
            write_private(file, content)
            if file.suffix == ".crt":
                file.chmod(0o644)
        if command:
            run(command)
    except PermissionError as error:
        remove(home)
        raise needs_root(f"writing {error.filename}", f"trust {home.name}") from error
    except BaseException:
        remove(home)
        raise
    return made


def remove(home: ClusterHome) -> HostTrust | None:
    """Undo what `add` did, also when it was interrupted.

    A file whose content has changed is kept: a cluster of another `SWARMER_HOME` may have a registry of the same name.

    Returns:
        What was undone; None if there was nothing to undo.

    Raises:
        HostError: this user lacks the rights.
    """
    record = _record(home)
    if not record.exists():
        return None
    data = json.loads(record.read_text())
    made = HostTrust(tuple(data["files"]), tuple(data["folders"]), tuple(data["command"]), data.get("digests", {}))
    try:
        made = replace(made, files=tuple(file for file in made.files if _is_as_written(file, made.digests)))
        for file in map(Path, made.files):
            file.unlink(missing_ok=True)
        for folder in reversed([folder for folder in map(Path, made.folders) if folder.is_dir()]):
            if not any(folder.iterdir()):
                folder.rmdir()
        if made.command:
            # Also without a file to remove: an earlier `remove` may have been interrupted before this command.
            run(_update_command(made.command))
        record.unlink()
    except PermissionError as error:
        raise HostError(
            f"removing the trust in {home.name} from this host needs root: {error.filename}",
            hint=f"{as_root(f'trust {home.name} --undo')}, then try again",
        ) from error
    return made


def trusted() -> Iterator[ClusterHome]:
    """The clusters that this host was made to trust."""
    for record in sorted(swarmer_home().glob(f"*/*/{_RECORD}")):
        yield ClusterHome(record.parent.parent.name, record.parent.name)


def _is_as_written(file: str, digests: Mapping[str, str]) -> bool:
    path = Path(file)
    return file not in digests or (path.exists() and sha256(path.read_bytes()).hexdigest() == digests[file])


def _update_command(command: tuple[str, ...]) -> tuple[str, ...]:
    """Debian's command removes the links to files that are gone only with `--fresh`."""
    return (*command, "--fresh") if command[0] == "update-ca-certificates" else command


def _record(home: ClusterHome) -> Path:
    return home.folder / _RECORD
