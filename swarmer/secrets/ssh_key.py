"""The SSH keys of a cluster and of its nodes."""

from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization.ssh import SSHPublicKeyTypes

from swarmer.errors import SwarmerError
from swarmer.files import write_private


@dataclass(frozen=True)
class KeyPair:
    """An Ed25519 key in OpenSSH's formats."""

    private: str
    public: str

    def __repr__(self) -> str:
        return f"KeyPair({self.public!r})"

    @classmethod
    def generate(cls) -> "KeyPair":
        key = Ed25519PrivateKey.generate()
        return cls(
            private=key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.OpenSSH,
                serialization.NoEncryption(),
            ).decode(),
            public=_openssh(key.public_key()),
        )

    @classmethod
    def create(cls, file: Path) -> "KeyPair":
        """Create the key in `file`, unless it exists; its public half is also in `file.pub`, for other programs.

        Raises:
            SwarmerError: the file exists but can't be used; it is left as it is.
        """
        if not file.exists():
            write_private(file, cls.generate().private)
        pair = cls.load(file)
        write_private(file.with_name(f"{file.name}.pub"), f"{pair.public}\n")
        return pair

    @classmethod
    def load(cls, file: Path) -> "KeyPair":
        """Read the key in `file`; nothing is created.

        The public half is derived from the private one, so they match also after an interrupted creation.

        Raises:
            SwarmerError: the file is missing, or can't be used.
        """
        start_over = "restore it, or start over: `swarmer down` removes it, the next cluster gets a new one"
        try:
            private = file.read_text()
            key = serialization.load_ssh_private_key(private.encode(), password=None)
        except FileNotFoundError:
            raise SwarmerError(f"the SSH key {file} is missing", hint=start_over) from None
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
            raise SwarmerError(f"the SSH key {file} can't be read", hint=start_over) from None
        return cls(private, _openssh(key.public_key()))


def _openssh(key: SSHPublicKeyTypes) -> str:
    return key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
