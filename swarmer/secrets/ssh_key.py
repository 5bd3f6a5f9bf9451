"""The SSH keys of a cluster and of its nodes."""

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

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
            public=key.public_key()
            .public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
            .decode(),
        )

    @classmethod
    def open(cls, file: Path) -> "KeyPair":
        """The key in `file` and `file.pub`, made on first use."""
        public = file.with_name(f"{file.name}.pub")
        if file.exists() and public.exists():
            return cls(file.read_text(), public.read_text().strip())
        pair = cls.generate()
        write_private(file, pair.private)
        write_private(public, f"{pair.public}\n")
        return pair
