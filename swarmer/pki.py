"""The certificates of one cluster: a root CA, an issuing CA per plane, and the leaves these sign.

EC P-256 and SHA-256 throughout, valid for a year at most, never longer than what signed them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from swarmer.errors import SwarmerError
from swarmer.files import locked_folder, make_private_folder, write_private

LIFETIME: Final = timedelta(days=365)
CLOCK_SKEW: Final = timedelta(hours=1)
RENEW_BEFORE: Final = timedelta(days=30)

CLIENT_NAME: Final = "swarmer-client"

# Not a secret: the folder's mode protects the key. Some key stores refuse a file without a password.
P12_PASSWORD: Final = "swarmer"

LOOPBACK: Final = IPv4Address("127.0.0.1")


class Plane(StrEnum):
    """Who talks to whom: a certificate of one plane opens nothing on another."""

    CONSUL = "consul"
    DOCKER = "docker"
    REGISTRY = "registry"


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
class ClientFiles:
    """Where the client certificates of a cluster are, for the harness, the command line and a browser.

    Attributes:
        certificate: for consul, with its chain.
        key: the key of `certificate`.
        p12: both, for a browser; its password is `P12_PASSWORD`.
        docker: the folder for `DOCKER_CERT_PATH`, with `ca.pem`, `cert.pem` and `key.pem`.
        registry_certificate: for the registry, with its chain.
        registry_key: the key of `registry_certificate`.
        renewed: an earlier certificate was replaced; a browser wants the new `p12`.
    """

    certificate: Path
    key: Path
    p12: Path
    docker: Path
    registry_certificate: Path
    registry_key: Path
    renewed: bool


@dataclass(frozen=True)
class Issuer:
    """A CA: the certificate, and the key that signs."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)


@dataclass(frozen=True)
class Authority:
    """The CAs of one cluster. The root signs one issuing CA per plane, these sign everything else."""

    cluster: str
    root: Issuer
    planes: Mapping[Plane, Issuer]

    @classmethod
    def open(cls, folder: Path, cluster: str) -> "Authority":
        """Load the CAs of a cluster, or create them on first use.

        What is there is never replaced. A key without a certificate is a creation that was interrupted; it
        is finished.

        Args:
            folder: holds `ca.pem`, `ca-key.pem` and `pki/`.
            cluster: `STACK:DC`, part of every CA's name.

        Raises:
            SwarmerError: a file is damaged, expired, or belongs to another CA or cluster.
        """
        with locked_folder(folder):
            make_private_folder(folder / "pki")
            try:
                root = _open_issuer(folder / "ca", _name(cluster, "root CA"), parent=None)
                planes = {
                    plane: _open_issuer(folder / f"pki/{plane}-ca", _name(cluster, f"{plane} CA"), parent=root)
                    for plane in Plane
                }
            except _UnusableError as error:
                raise SwarmerError(
                    str(error),
                    hint=f"take the cluster down and remove ca.pem, ca-key.pem and pki/ in {folder} to begin "
                    "with a new CA; every node of the cluster is then replaced",
                ) from error
        return cls(cluster, root, planes)

    def bundle(self, plane: Plane) -> bytes:
        """What a client trusts: the plane's issuing CA and the root.

        OpenSSL (Python, curl) wants a chain up to the root. The root vouches for every plane, so this is for
        those who check a server's name, not for a server that checks its clients: see `plane_bundle`.
        """
        return self.planes[plane].pem + self.root.pem

    def plane_bundle(self, plane: Plane) -> bytes:
        """What a server trusts its clients by: the plane's issuing CA alone, so that no other plane gets in.

        Go (consul, docker, registry) takes any certificate of its pool as the end of a chain. OpenSSL does
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
            plane: whose issuing CA signs.
            common_name: for people; TLS looks only at `dns` and `ip`.
            dns: names the leaf is valid for.
            ip: addresses the leaf is valid for.
            server: it may answer connections.
            client: it may open them.

        Raises:
            ValueError: it would be valid for nothing.
        """
        names = [*map(x509.DNSName, dict.fromkeys(dns)), *map(x509.IPAddress, dict.fromkeys(ip))]
        usages = server * [ExtendedKeyUsageOID.SERVER_AUTH] + client * [ExtendedKeyUsageOID.CLIENT_AUTH]
        if not names or not usages:
            raise ValueError("a leaf needs a name or an address, and at least one of server and client")
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            _builder(_name(self.cluster, common_name), key, self.planes[plane])
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
        )
        leaf = builder.sign(self.planes[plane].key, hashes.SHA256())
        return Identity(leaf.public_bytes(Encoding.PEM) + self.planes[plane].pem, _key_pem(key))

    def client(self, folder: Path) -> ClientFiles:
        """Write the client certificates, one per plane; those that are good for a while stay as they are."""
        p12 = folder / "client.p12"
        docker = folder / "docker"
        files = {
            Plane.CONSUL: (folder / "client.pem", folder / "client-key.pem"),
            Plane.DOCKER: (docker / "cert.pem", docker / "key.pem"),
            Plane.REGISTRY: (folder / "registry-client.pem", folder / "registry-client-key.pem"),
        }
        renewed = False
        with locked_folder(folder):
            make_private_folder(docker)
            for plane, (certificate, key) in files.items():
                if self._is_good(plane, certificate, key):
                    continue
                renewed = renewed or certificate.exists()
                if plane is Plane.CONSUL:
                    p12.unlink(missing_ok=True)
                identity = self.issue(plane, CLIENT_NAME, dns=[CLIENT_NAME], ip=[], server=False, client=True)
                write_private(key, identity.key)
                write_private(certificate, identity.certificate)
            write_private(docker / "ca.pem", self.bundle(Plane.DOCKER))
            if not p12.exists():
                write_private(p12, self._pkcs12(*files[Plane.CONSUL]))
        return ClientFiles(*files[Plane.CONSUL], p12, docker, *files[Plane.REGISTRY], renewed)

    def _is_good(self, plane: Plane, certificate: Path, key: Path) -> bool:
        """A client certificate of this authority that lasts, or lasts as long as its CA."""
        try:
            leaf = _load(certificate, key)
            _check_signature(certificate, leaf.certificate, self.planes[plane].certificate)
        except _UnusableError:
            return False
        end = self.planes[plane].certificate.not_valid_after_utc
        return leaf.certificate.not_valid_after_utc >= min(now() + RENEW_BEFORE, end)

    def _pkcs12(self, certificate: Path, key: Path) -> bytes:
        leaf = _load(certificate, key)
        return pkcs12.serialize_key_and_certificates(
            f"swarmer {self.cluster}".encode(),
            leaf.key,
            leaf.certificate,
            [self.planes[Plane.CONSUL].certificate, self.root.certificate],
            serialization.BestAvailableEncryption(P12_PASSWORD.encode()),
        )


def consul_identity(authority: Authority, *, node: str, dc: str, stack: str, ip: IPv4Address, server: bool) -> Identity:
    """A node's certificate for consul, where every node is both server and client.

    Only a consul server's holds the name `server.DC.STACK`: with `verify_server_hostname`, that name is what
    makes a consul server.
    """
    names = [f"{node}.node.{dc}.{stack}", f"consul.service.{dc}.{stack}", "localhost"]
    names += [f"server.{dc}.{stack}"] if server else []
    return authority.issue(Plane.CONSUL, node, dns=names, ip=[ip, LOOPBACK], server=True, client=True)


def docker_identity(
    authority: Authority, *, node: str, dc: str, stack: str, ip: IPv4Address, manager: bool
) -> Identity:
    """A node's certificate for its docker API. No client's: a node is no administrator of its peers."""
    names = [f"{node}.node.{dc}.{stack}", "localhost"]
    names += [f"swarm.service.{dc}.{stack}"] if manager else []
    return authority.issue(Plane.DOCKER, node, dns=names, ip=[ip, LOOPBACK], server=True, client=False)


def registry_identity(authority: Authority, *, node: str, dc: str, stack: str, ip: IPv4Address) -> Identity:
    """By which a registry node answers. Any of them answers for the registry."""
    names = [f"{node}.node.{dc}.{stack}", f"registry.service.{dc}.{stack}", "localhost"]
    return authority.issue(Plane.REGISTRY, node, dns=names, ip=[ip, LOOPBACK], server=True, client=False)


def registry_client(authority: Authority, *, node: str, dc: str, stack: str) -> Identity:
    """By which a node pulls. Its common name has dots, so that no node can be named like `CLIENT_NAME`."""
    name = f"{node}.node.{dc}.{stack}"
    return authority.issue(Plane.REGISTRY, name, dns=[name], ip=[], server=False, client=True)


def organization(cluster: str) -> str:
    """What stands as such in every certificate of a cluster."""
    return f"swarmer {cluster}"


def now() -> datetime:
    """The time, in whole seconds as certificates have it."""
    return datetime.now(UTC).replace(microsecond=0)


class _UnusableError(Exception):
    """A file that is there can't be used; the text says which, and why."""


def _open_issuer(stem: Path, subject: x509.Name, *, parent: Issuer | None) -> Issuer:
    certificate_file, key_file = stem.with_name(f"{stem.name}.pem"), stem.with_name(f"{stem.name}-key.pem")
    if not certificate_file.exists():
        _create_issuer(certificate_file, key_file, subject, parent)
    issuer = _load(certificate_file, key_file)
    if issuer.certificate.subject != subject:
        raise _UnusableError(f"{certificate_file} belongs to another cluster")
    _check_signature(certificate_file, issuer.certificate, (parent or issuer).certificate)
    return issuer


def _create_issuer(certificate_file: Path, key_file: Path, subject: x509.Name, parent: Issuer | None) -> None:
    if not key_file.exists():
        write_private(key_file, _key_pem(ec.generate_private_key(ec.SECP256R1())))
    key = _load_key(key_file)
    builder = (
        _builder(subject, key, parent)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0 if parent else 1), critical=True)
        .add_extension(_key_usage(ca=True), critical=True)
    )
    certificate = builder.sign(parent.key if parent else key, hashes.SHA256())
    write_private(certificate_file, certificate.public_bytes(Encoding.PEM))


def _builder(subject: x509.Name, key: ec.EllipticCurvePrivateKey, parent: Issuer | None) -> x509.CertificateBuilder:
    start = now() - CLOCK_SKEW
    end = start + LIFETIME
    signer = parent.key if parent else key
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(parent.certificate.subject if parent else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(min(end, parent.certificate.not_valid_after_utc) if parent else end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(cluster: str, common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization(cluster)),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _load(certificate_file: Path, key_file: Path) -> Issuer:
    """Read a certificate and its key.

    Raises:
        _UnusableError: one of them is missing or damaged, they don't fit, or their time is over.
    """
    key = _load_key(key_file)
    try:
        certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
        fits = certificate.public_key() == key.public_key()
    except (OSError, ValueError) as error:
        raise _UnusableError(f"the certificate {certificate_file} can't be read") from error
    if not fits:
        raise _UnusableError(f"{key_file} is not the key of {certificate_file}")
    if not certificate.not_valid_before_utc <= now() < certificate.not_valid_after_utc:
        raise _UnusableError(
            f"{certificate_file} is valid from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} "
            f"to {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC, which is not now"
        )
    return Issuer(certificate, key)


def _load_key(file: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(file.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise _UnusableError(f"the key {file} can't be read") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _UnusableError(f"the key {file} is not an EC key")
    return key


def _check_signature(file: Path, certificate: x509.Certificate, issuer: x509.Certificate) -> None:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise _UnusableError(f"{file} was signed by another CA") from error


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
