"""One CA, or one leaf: its certificate and its key in two files, which are checked whenever they are read.

EC P-256 and SHA-256 throughout; valid for a year at most, and never longer than the issuer.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from swarmer.files import write_private
from swarmer.secrets.scope import Scope

LIFETIME: Final = timedelta(days=365)

CLOCK_SKEW: Final = timedelta(hours=1)

RENEW_BEFORE: Final = timedelta(days=30)


class UnusableError(Exception):
    """A file is missing, or can't be used; the text names it, and says why."""


@dataclass(frozen=True)
class Issuer:
    """A certificate and its private key; those of a CA sign others."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)


def create_issuer(stem: Path, subject: x509.Name, *, parent: Issuer | None, scope: Scope) -> Issuer:
    """Create the CA in `STEM.pem` and `STEM-key.pem`, unless it exists; an existing key gets a certificate.

    Raises:
        UnusableError: as `load_issuer` does.
    """
    certificate_file, key_file = issuer_files(stem)
    if not certificate_file.exists():
        if not key_file.exists():
            write_private(key_file, key_pem(ec.generate_private_key(ec.SECP256R1())))
        key = _load_key(key_file)
        builder = (
            certificate_builder(subject, key, parent)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0 if parent else 1), critical=True)
            .add_extension(key_usage(ca=True), critical=True)
            .add_extension(scope.constraints, critical=True)
        )
        certificate = builder.sign(parent.key if parent else key, hashes.SHA256())
        write_private(certificate_file, certificate.public_bytes(Encoding.PEM))
    return load_issuer(stem, subject, parent=parent, scope=scope)


def load_issuer(stem: Path, subject: x509.Name, *, parent: Issuer | None, scope: Scope) -> Issuer:
    """Read the CA in `STEM.pem` and `STEM-key.pem`.

    Raises:
        UnusableError: a file is missing, damaged or expired, or belongs to another CA or cluster, or the CA may
            vouch for other names and addresses than `scope`.
    """
    certificate_file, key_file = issuer_files(stem)
    issuer = load_pair(certificate_file, key_file)
    if issuer.certificate.subject != subject:
        raise UnusableError(f"{certificate_file} belongs to another cluster")
    check_signature(certificate_file, issuer.certificate, (parent or issuer).certificate)
    _check_scope(certificate_file, issuer.certificate, scope)
    return issuer


def _check_scope(file: Path, certificate: x509.Certificate, scope: Scope) -> None:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.NameConstraints)
    except x509.ExtensionNotFound:
        raise UnusableError(f"{file} was created by an older swarmer, and may vouch for any name") from None
    if extension.value != scope.constraints or not extension.critical:
        permitted = ", ".join(str(name.value) for name in extension.value.permitted_subtrees or ())
        raise UnusableError(f"{file} is for {permitted or 'no name'}, but the cluster needs {scope}")


def issuer_files(stem: Path) -> tuple[Path, Path]:
    """The files of a CA's certificate and of its key."""
    return stem.with_name(f"{stem.name}.pem"), stem.with_name(f"{stem.name}-key.pem")


def certificate_builder(
    subject: x509.Name, key: ec.EllipticCurvePrivateKey, parent: Issuer | None
) -> x509.CertificateBuilder:
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


def key_usage(*, ca: bool) -> x509.KeyUsage:
    """What the key may be used for."""
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


def subject_name(cluster: str, common_name: str) -> x509.Name:
    """The subject of a certificate of a cluster."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization(cluster)),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def organization(cluster: str) -> str:
    """The organization in the subject of every certificate of a cluster."""
    return f"swarmer {cluster}"


def load_pair(certificate_file: Path, key_file: Path) -> Issuer:
    """Read a certificate and its key.

    Raises:
        UnusableError: one of them is missing or damaged, they don't match, or the certificate is not valid now.
    """
    key = _load_key(key_file)
    try:
        certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
        fits = certificate.public_key() == key.public_key()
    except FileNotFoundError:
        raise UnusableError(f"the certificate {certificate_file} is missing") from None
    except (OSError, ValueError) as error:
        raise UnusableError(f"the certificate {certificate_file} can't be read") from error
    if not fits:
        raise UnusableError(f"{key_file} is not the key of {certificate_file}")
    if not certificate.not_valid_before_utc <= now() < certificate.not_valid_after_utc:
        raise UnusableError(
            f"{certificate_file} is valid from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} "
            f"to {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC, which is not now"
        )
    return Issuer(certificate, key)


def _load_key(file: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(file.read_bytes(), password=None)
    except FileNotFoundError:
        raise UnusableError(f"the key {file} is missing") from None
    except (OSError, ValueError, TypeError) as error:
        raise UnusableError(f"the key {file} can't be read") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise UnusableError(f"the key {file} is not an EC key")
    return key


def check_signature(file: Path, certificate: x509.Certificate, issuer: x509.Certificate) -> None:
    """Check that a certificate was signed by that issuer.

    Raises:
        UnusableError: it was not.
    """
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise UnusableError(f"{file} was signed by another CA") from error


def lasts(leaf: Issuer, issuer: Issuer) -> bool:
    """Whether a leaf need not be renewed yet: it is valid for `RENEW_BEFORE`, or as long as its CA."""
    end = issuer.certificate.not_valid_after_utc
    return leaf.certificate.not_valid_after_utc >= min(now() + RENEW_BEFORE, end)


def now() -> datetime:
    """The time in UTC, in whole seconds as in certificates."""
    return datetime.now(UTC).replace(microsecond=0)


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key as stored: PEM, PKCS#8, not encrypted."""
    return key.private_bytes(Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
