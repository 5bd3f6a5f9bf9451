"""The shared secrets of one cluster."""

import base64
import json
import re
import secrets
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Final
from urllib.parse import quote

from swarmer.errors import SwarmerError
from swarmer.files import locked_folder, write_private
from swarmer.spec import ConsulRole, Server, Spec, SwarmRole

MASK: Final = "***"

# A block that was cut off has no end line: it is masked to the end of the text.
_PRIVATE_KEY: Final = r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"

# Created by the swarm itself, and printed by docker.
_JOIN_TOKEN: Final = r"SWMTKN-1-[0-9a-z]+-[0-9a-z]+"

# The environment of docker-registry. The keys of a bucket come from the user's own file.
_VARIABLES: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "REGISTRY_HTTP_SECRET")
_VARIABLE: Final = "|".join(rf"""(?<={name}=)[^\s"'\\]+""" for name in _VARIABLES)

_START_OVER: Final = "restore them, or start over: `swarmer down` removes them, the next cluster gets new ones"


@dataclass(frozen=True, repr=False)
class Credentials:
    """The secrets that the nodes and the harness of one cluster share.

    Attributes:
        gossip_key: base64 of 32 bytes, for consul's `encrypt`.
        management_token: the consul ACL token with all rights; for the harness.
        tokens: the consul ACL token of each service of each node, by `NODE/SERVICE`, and the secrets of the
            registry; see `token_names`.
    """

    gossip_key: str
    management_token: str
    tokens: Mapping[str, str]

    @classmethod
    def create(cls, file: Path, token_names: Iterable[str]) -> "Credentials":
        """Create the credentials of a cluster that is about to be launched; existing ones are kept.

        Args:
            token_names: the tokens to create, unless they exist; see `token_names`.

        Raises:
            SwarmerError: the file exists but can't be used; it is left as it is.
        """
        with locked_folder(file.parent):
            if not file.exists():
                write_private(file, cls._generate()._document())
            return cls._ensure_tokens(file, token_names)

    @classmethod
    def ensure_tokens(cls, file: Path, token_names: Iterable[str]) -> "Credentials":
        """Create the tokens that an existing cluster lacks.

        Tokens that are not named are kept: a cluster may grow again.

        Raises:
            SwarmerError: as `load` does.
        """
        cls.load(file)  # raises before the lock would make the folder
        with locked_folder(file.parent):
            return cls._ensure_tokens(file, token_names)

    @classmethod
    def _ensure_tokens(cls, file: Path, token_names: Iterable[str]) -> "Credentials":
        current = cls.load(file)
        if missing := {name: _token() for name in token_names if name not in current.tokens}:
            current = replace(current, tokens=MappingProxyType({**current.tokens, **missing}))
            write_private(file, current._document())
        return current

    @classmethod
    def _generate(cls) -> "Credentials":
        gossip_key = base64.b64encode(secrets.token_bytes(32)).decode()
        return cls(gossip_key, _token(), MappingProxyType({}))

    @classmethod
    def load(cls, file: Path) -> "Credentials":
        """Read the credentials; nothing is created.

        Raises:
            SwarmerError: the file is missing, or can't be used.
        """
        try:
            data = json.loads(file.read_text())
            if len(base64.b64decode(data["gossip_key"], validate=True)) != 32:
                raise ValueError
            tokens = {name: str(uuid.UUID(token)) for name, token in data["tokens"].items()}
            return cls(data["gossip_key"], str(uuid.UUID(data["management_token"])), MappingProxyType(tokens))
        except FileNotFoundError:
            raise SwarmerError(f"the credentials {file} are missing", hint=_START_OVER) from None
        # The cause is left out: it may quote the file.
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise SwarmerError(f"the credentials {file} can't be read", hint=_START_OVER) from None

    def _document(self) -> bytes:
        document = {
            "gossip_key": self.gossip_key,
            "management_token": self.management_token,
            "tokens": dict(self.tokens),
        }
        return json.dumps(document, indent=1).encode()

    def mask(self, text: str) -> str:
        """The text with `***` for every secret of this cluster, and any private key, join token and key of a bucket."""
        return self._secrets.sub(MASK, text)

    @cached_property
    def _secrets(self) -> re.Pattern[str]:
        plain = (self.gossip_key, self.management_token, *self.tokens.values())
        spellings = {*plain, *(quote(secret, safe="") for secret in plain)}
        words = sorted(map(re.escape, spellings), key=len, reverse=True)
        return re.compile("|".join([_PRIVATE_KEY, _JOIN_TOKEN, _VARIABLE, *words]), re.DOTALL | re.IGNORECASE)

    def __repr__(self) -> str:
        tokens = ", ".join(f"{name}: {MASK}" for name in self.tokens)
        return f"Credentials(gossip_key={MASK}, management_token={MASK}, tokens={{{tokens}}})"


def consul_tokens(server: Server) -> dict[str, str]:
    """Service to the name of its token in `Credentials.tokens`, for one node.

    The rights of each token are in `image/rootfs/usr/share/swarmer/acl/SERVICE.hcl`.
    """
    swarm = ("swarm-worker",) if server.swarm is SwarmRole.AGENT else ("swarm-manager", "registrator-labels")
    registry = ("registry",) if server.consul is ConsulRole.SERVER else ()
    return {service: f"{server.name}/{service}" for service in ("agent", "dns", "registrator", *swarm, *registry)}


#: Names in `Credentials.tokens`: the password of the registry's user, and the key by which its nodes sign.
REGISTRY_PASSWORD: Final = "registry/password"
REGISTRY_SECRET: Final = "registry/secret"


def token_names(spec: Spec) -> list[str]:
    """The names of all tokens of a cluster."""
    of_nodes = [name for server in spec.servers for name in consul_tokens(server).values()]
    return [*of_nodes, REGISTRY_PASSWORD, REGISTRY_SECRET]


def _token() -> str:
    return str(uuid.uuid4())
