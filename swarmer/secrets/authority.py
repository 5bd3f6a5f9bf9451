"""The certificates of one cluster: a root CA, an issuing CA per plane, and the leaves these sign."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final, Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID

from swarmer.errors import SwarmerError
from swarmer.files import locked_folder, make_private_folder, write_private
from swarmer.secrets.client_files import P12_NAME, ClientFiles, Plane, client_files
from swarmer.secrets.issuer import (
    Issuer,
    UnusableError,
    certificate_builder,
    check_signature,
    create_issuer,
    issuer_files,
    key_pem,
    key_usage,
    lasts,
    load_issuer,
    load_pair,
    subject_name,
)
from swarmer.secrets.scope import CLIENT_NAME, Scope
from swarmer.spec import Spec

# Not a secret: the mode of the folder protects the key. Some key stores refuse a file without a password.
P12_PASSWORD: Final = "swarmer"


@dataclass(frozen=True)
class Identity:
    """What a TLS endpoint shows, and what it keeps to itself.

    Attributes:
        certificate: PEM of the leaf, followed by the issuing CA that signed it.
        key: PEM of the private key, PKCS#8, not encrypted.
    """

    certificate: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True)
class Authority:
    """The CAs of one cluster. The root signs one issuing CA per plane, these sign everything else.

    Attributes:
        cluster: `STACK:DC`.
        scope: what the CAs may vouch for.
    """

    cluster: str
    scope: Scope
    root: Issuer
    planes: Mapping[Plane, Issuer]

    @classmethod
    def create(cls, folder: Path, spec: Spec) -> "Authority":
        """Create the CAs of a cluster that is about to be launched; existing ones are kept.

        An interrupted creation is completed.

        Args:
            folder: for `ca.pem`, `ca-key.pem` and `pki/`.

        Raises:
            SwarmerError: as `load` does; or the root CA is missing while CAs that it signed exist.
        """
        with locked_folder(folder), _explained(spec):
            make_private_folder(folder / "pki")
            root, _ = issuer_files(_root_stem(folder))
            for plane in Plane:
                signed, _ = issuer_files(_plane_stem(folder, plane))
                if signed.exists() and not root.exists():
                    raise UnusableError(f"{root} is missing, which signed {signed}")
            return cls._of(folder, spec, create_issuer)

    @classmethod
    def load(cls, folder: Path, spec: Spec) -> "Authority":
        """Read the CAs of a cluster; nothing is created.

        Args:
            folder: holds `ca.pem`, `ca-key.pem` and `pki/`.

        Raises:
            SwarmerError: a file is missing, damaged or expired, or belongs to another CA or cluster, or to one with
                another admin network.
        """
        with _explained(spec):
            return cls._of(folder, spec, load_issuer)

    @classmethod
    def _of(cls, folder: Path, spec: Spec, issuer: "_IssuerFunction") -> "Authority":
        scope = Scope.of(spec)
        root = issuer(_root_stem(folder), subject_name(spec.name, "root CA"), parent=None, scope=scope)
        planes = {
            plane: issuer(_plane_stem(folder, plane), subject_name(spec.name, f"{plane} CA"), parent=root, scope=scope)
            for plane in Plane
        }
        return cls(spec.name, scope, root, planes)

    @property
    def end(self) -> datetime:
        """When the first of the CAs expires, and with it all that it signed."""
        return min(issuer.certificate.not_valid_after_utc for issuer in (self.root, *self.planes.values()))

    def bundle(self, plane: Plane) -> bytes:
        """The CAs that a client trusts: the plane's issuing CA and the root, as PEM.

        OpenSSL (Python, curl) needs a chain up to the root. The root vouches for every plane. This bundle is thus for
        clients, which check the server's name as well, not for servers that verify clients: see `plane_bundle`.
        """
        return self.planes[plane].pem + self.root.pem

    def plane_bundle(self, plane: Plane) -> bytes:
        """The CA by which a server verifies clients: the plane's issuing CA alone, which excludes other planes.

        Go (consul, docker, registry) accepts any certificate of its pool as the end of a chain. OpenSSL does
        so only with `X509_V_FLAG_PARTIAL_CHAIN`.
        """
        return self.planes[plane].pem

    def issue(
        self,
        plane: Plane,
        common_name: str,
        *,
        dns: Sequence[str],
        ip: Sequence[IPv4Address],
        server: bool,
        client: bool,
    ) -> Identity:
        """Sign a new leaf, with a new key.

        Args:
            plane: the plane whose issuing CA signs.
            common_name: human-readable; TLS checks only `dns` and `ip`.
            dns: names the leaf is valid for.
            ip: addresses the leaf is valid for.
            server: valid for TLS servers.
            client: valid for TLS clients.

        Raises:
            ValueError: the leaf would be valid for nothing, or for a name or an address outside of `scope`.
        """
        wanted: list[str | IPv4Address] = [*dns, *ip]
        if outside := [str(name) for name in wanted if not self.scope.covers(name)]:
            raise ValueError(f"the CAs of {self.cluster} are for {self.scope}, not for {', '.join(outside)}")
        names = [*map(x509.DNSName, dict.fromkeys(dns)), *map(x509.IPAddress, dict.fromkeys(ip))]
        usages = server * [ExtendedKeyUsageOID.SERVER_AUTH] + client * [ExtendedKeyUsageOID.CLIENT_AUTH]
        if not names or not usages:
            raise ValueError("a leaf needs a name or an address, and at least one of server and client")
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            certificate_builder(subject_name(self.cluster, common_name), key, self.planes[plane])
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(key_usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
        )
        leaf = builder.sign(self.planes[plane].key, hashes.SHA256())
        return Identity(leaf.public_bytes(Encoding.PEM) + self.planes[plane].pem, key_pem(key))

    def write_client_files(self, folder: Path) -> bool:
        """Write `client_files` of every plane and `P12_NAME`; a certificate is kept until it is about to expire.

        Returns:
            Whether an earlier certificate was replaced; a browser then needs the new `P12_NAME`.
        """
        p12 = folder / P12_NAME
        renewed = False
        with locked_folder(folder):
            for plane in Plane:
                files = client_files(folder, plane)
                for file in (files.certificate, files.trust):
                    make_private_folder(file.parent)
                write_private(files.trust, self.bundle(plane))
                if self._is_good(plane, files):
                    continue
                renewed = renewed or files.certificate.exists()
                if plane is Plane.CONSUL:
                    p12.unlink(missing_ok=True)
                identity = self.issue(plane, CLIENT_NAME, dns=[CLIENT_NAME], ip=[], server=False, client=True)
                write_private(files.key, identity.key)
                write_private(files.certificate, identity.certificate)
            if not p12.exists():
                write_private(p12, self._pkcs12(client_files(folder, Plane.CONSUL)))
        return renewed

    def _is_good(self, plane: Plane, files: ClientFiles) -> bool:
        """Whether a client certificate is of this authority, and need not be renewed yet."""
        try:
            leaf = load_pair(files.certificate, files.key)
            check_signature(files.certificate, leaf.certificate, self.planes[plane].certificate)
        except UnusableError:
            return False
        return lasts(leaf, self.planes[plane])

    def _pkcs12(self, files: ClientFiles) -> bytes:
        leaf = load_pair(files.certificate, files.key)
        return pkcs12.serialize_key_and_certificates(
            f"swarmer {self.cluster}".encode(),
            leaf.key,
            leaf.certificate,
            [self.planes[Plane.CONSUL].certificate, self.root.certificate],
            serialization.BestAvailableEncryption(P12_PASSWORD.encode()),
        )


class _IssuerFunction(Protocol):
    """`create_issuer` or `load_issuer`."""

    def __call__(self, stem: Path, subject: x509.Name, *, parent: Issuer | None, scope: Scope) -> Issuer: ...


def _root_stem(folder: Path) -> Path:
    return folder / "ca"


def _plane_stem(folder: Path, plane: Plane) -> Path:
    return folder / f"pki/{plane}-ca"


@contextmanager
def _explained(spec: Spec) -> Iterator[None]:
    """Add what to do to an `UnusableError`."""
    try:
        yield
    except UnusableError as error:
        raise SwarmerError(
            f"the CA of {spec.name} can't be used: {error}",
            hint=f"restore it, or start over with a new CA: `swarmer down {spec.name} --forget`, then `swarmer up`",
        ) from error
