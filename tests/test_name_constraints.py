"""The CAs of a cluster vouch for its own names and addresses, and for nothing else, by more than one checker."""

import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from small_specs import one_node
from strategies import specs

from swarmer.errors import SwarmerError
from swarmer.secrets.authority import Authority
from swarmer.secrets.client_files import Plane, client_files
from swarmer.secrets.credentials import Credentials, token_names
from swarmer.secrets.issuer import Issuer, certificate_builder, issuer_files, key_usage, load_pair, subject_name
from swarmer.secrets.ssh_key import KeyPair
from swarmer.seed.cloudinit import seed_data
from swarmer.seed.environment import NodeEnvironment
from swarmer.spec import Spec

Address = IPv4Address | IPv6Address

SPEC = one_node()
USAGES = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]

INSIDE: Sequence[str | Address] = (
    *("dev.nspawn", "core-1.node.dev.nspawn", "server.dev.nspawn", "localhost", "x.localhost", "swarmer-client"),
    *map(IPv4Address, ("10.7.0.0", "10.7.0.255", "127.0.0.1", "127.255.255.255")),
)
OUTSIDE: Sequence[str | Address] = (
    *("example.org", "nspawn", "xdev.nspawn", "dev.nspawn.org", "dev.vagrant", "localhost.org", "swarmer"),
    *map(IPv4Address, ("10.6.255.255", "10.7.1.0", "126.255.255.255", "128.0.0.0", "192.0.2.1")),
    *map(IPv6Address, ("::1", "2001:db8::1", "::ffff:10.7.0.11")),
)

few = partial(settings, deadline=None, suppress_health_check=[HealthCheck.too_slow])
label = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,12}[a-z0-9])?", fullmatch=True)
dns_names = st.builds(
    lambda prefix, dot, middle, suffix: prefix + dot + middle + suffix,
    st.sampled_from(["", "x", "a.b"]) | label,
    st.sampled_from(["", "."]),
    st.sampled_from(["dev.nspawn", "localhost", "swarmer-client", "example.org"]) | label,
    st.sampled_from(["", "", ".org", "x"]),
).filter(lambda name: not name.startswith("."))
addresses = st.ip_addresses(v=4) | st.ip_addresses(network="10.7.0.0/23") | st.ip_addresses(network="126.0.0.0/7")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(tmp_path_factory.mktemp("authority"), SPEC)


def signers(authority: Authority) -> dict[str, Issuer]:
    return {"root": authority.root, **{str(plane): issuer for plane, issuer in authority.planes.items()}}


def sign(issuer: Issuer, *names: str | Address) -> x509.Certificate:
    """A leaf that only whoever has the key of a CA can make: `Authority.issue` refuses what is outside."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        certificate_builder(subject_name("nspawn:dev", "leaf"), key, issuer)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(USAGES), critical=False)
        .add_extension(x509.SubjectAlternativeName([*map(general_name, names)]), critical=False)
    )
    return builder.sign(issuer.key, hashes.SHA256())


def general_name(name: str | Address) -> x509.DNSName | x509.IPAddress:
    return x509.DNSName(name) if isinstance(name, str) else x509.IPAddress(name)


def is_accepted(name: str | Address, leaf: x509.Certificate, issuers: list[x509.Certificate], root: Issuer) -> bool:
    """What cryptography thinks of a server of that name."""
    policy = PolicyBuilder().store(Store([root.certificate]))
    try:
        policy.build_server_verifier(general_name(name)).verify(leaf, issuers)
    except VerificationError:
        return False
    return True


def openssl_accepts(folder: Path, root: Issuer, issuers: Sequence[x509.Certificate], *leaves: x509.Certificate) -> bool:
    """What OpenSSL thinks of all leaves."""

    def write(name: str, certificates: Sequence[x509.Certificate]) -> str:
        file = folder / name
        file.write_bytes(b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates))
        return str(file)

    files = [write(f"leaf-{number}.pem", [leaf]) for number, leaf in enumerate(leaves)]
    trust = ["-CAfile", write("root.pem", [root.certificate]), "-untrusted", write("issuers.pem", issuers)]
    command = ["openssl", "verify", "-x509_strict", "-no-CApath", "-no-CAstore", *trust, *files]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 or "permitted subtree violation" in done.stderr, done.stderr
    return done.returncode == 0


# What may be signed


@few(max_examples=60)
@given(name=dns_names | addresses.map(lambda ip: IPv4Address(int(ip))), signer=st.sampled_from(["root", *Plane]))
def test_a_leaf_is_accepted_exactly_for_what_the_cluster_owns(
    authority: Authority, name: str | IPv4Address, signer: str
) -> None:
    issuer = signers(authority)[signer]
    leaf = sign(issuer, name)
    accepted = is_accepted(name, leaf, [issuer.certificate], authority.root)
    assert accepted == authority.scope.covers(name)


@pytest.mark.parametrize("signer", ["root", *Plane])
def test_openssl_draws_the_line_at_the_same_place(authority: Authority, tmp_path: Path, signer: str) -> None:
    issuer = signers(authority)[signer]
    check = partial(openssl_accepts, tmp_path, authority.root, [issuer.certificate])
    assert check(*(sign(issuer, name) for name in INSIDE))
    for name in OUTSIDE:
        assert not check(sign(issuer, name)), name
        assert not check(sign(issuer, "core-1.node.dev.nspawn", name)), name


@pytest.mark.parametrize("name", OUTSIDE, ids=str)
def test_cryptography_draws_the_line_at_the_same_place(authority: Authority, name: str | Address) -> None:
    for issuer in signers(authority).values():
        assert not is_accepted(name, sign(issuer, name), [issuer.certificate], authority.root)


@pytest.mark.parametrize("name", [name for name in OUTSIDE if not isinstance(name, IPv6Address)], ids=str)
def test_the_authority_does_not_sign_what_would_be_refused(authority: Authority, name: str | IPv4Address) -> None:
    dns, ip = ([name], []) if isinstance(name, str) else ([], [name])
    with pytest.raises(ValueError, match=r"the CAs of nspawn:dev are for dev\.nspawn, localhost, "):
        authority.issue(Plane.CONSUL, "x", dns=dns, ip=ip, server=True, client=False)


def test_every_ca_carries_the_constraints_as_critical(authority: Authority) -> None:
    for issuer in signers(authority).values():
        extension = issuer.certificate.extensions.get_extension_for_class(x509.NameConstraints)
        assert extension.critical
        assert extension.value == authority.scope.constraints
        assert not extension.value.excluded_subtrees


# What is signed


def leaves_of(spec: Spec, folder: Path) -> Iterator[list[x509.Certificate]]:
    """Every certificate that the nodes and the clients of a cluster get, with the CAs that come with it."""
    authority = Authority.create(folder, spec)
    authority.write_client_files(folder)
    credentials = Credentials.create(folder / "credentials.json", token_names(spec))
    key = KeyPair.generate()
    for server in spec.servers:
        seed = seed_data(
            spec,
            server,
            authority=authority,
            credentials=credentials,
            login=key,
            host_key=key,
            consul_version=(1, 8, 7),
            environment=NodeEnvironment(network={}),
        )
        for file in YAML(typ="safe").load(seed.user_data)["write_files"]:
            if "BEGIN CERTIFICATE" in file["content"]:
                yield x509.load_pem_x509_certificates(file["content"].encode())
    for plane in Plane:
        yield x509.load_pem_x509_certificates(client_files(folder, plane).certificate.read_bytes())


def is_ca(certificate: x509.Certificate) -> bool:
    return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


@few(max_examples=15)
@given(spec=specs(max_servers=3))
def test_every_leaf_of_a_cluster_verifies_under_its_ca(spec: Spec) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        chains = [chain for chain in leaves_of(spec, folder) if not is_ca(chain[0])]
        authority = Authority.load(folder, spec)
        assert len(chains) >= 3 * len(spec.servers) + len(Plane)
        for leaf, *issuers in chains:
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
            dns, ips = names.get_values_for_type(x509.DNSName), names.get_values_for_type(x509.IPAddress)
            assert len(names) == len(dns) + len(ips)
            for each in (*dns, *ips):
                assert isinstance(each, str | IPv4Address)
                assert authority.scope.covers(each)
                if ExtendedKeyUsageOID.SERVER_AUTH in usages:
                    assert is_accepted(each, leaf, issuers, authority.root)
            if ExtendedKeyUsageOID.CLIENT_AUTH in usages:
                policy = PolicyBuilder().store(Store([authority.root.certificate]))
                policy.build_client_verifier().verify(leaf, issuers)
        issuers = [issuer.certificate for issuer in authority.planes.values()]
        assert openssl_accepts(folder, authority.root, issuers, *(leaf for leaf, *_ in chains))


# CAs that were made for something else


def replace_ca(folder: Path, name: str, constraints: x509.NameConstraints | None, *, critical: bool = True) -> None:
    """Sign a CA again, with its own key."""
    certificate, key = issuer_files(folder / name)
    old = load_pair(certificate, key)
    parent = None if name == "ca" else load_pair(*issuer_files(folder / "ca"))
    builder = (
        certificate_builder(old.certificate.subject, old.key, parent)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0 if parent else 1), critical=True)
        .add_extension(key_usage(ca=True), critical=True)
    )
    if constraints:
        builder = builder.add_extension(constraints, critical=critical)
    certificate.write_bytes(builder.sign((parent or old).key, hashes.SHA256()).public_bytes(Encoding.PEM))


@pytest.mark.parametrize("method", [Authority.create, Authority.load], ids=["create", "load"])
@pytest.mark.parametrize("name", ["ca", "pki/consul-ca", "pki/docker-ca", "pki/registry-ca"])
def test_a_ca_of_an_older_version_is_refused(
    tmp_path: Path, name: str, method: Callable[[Path, Spec], Authority]
) -> None:
    Authority.create(tmp_path, SPEC)
    replace_ca(tmp_path, name, None)
    with pytest.raises(SwarmerError, match=f"{name}.pem was created by an older swarmer") as caught:
        method(tmp_path, SPEC)
    assert "`swarmer down nspawn:dev --forget`" in caught.value.hint


@pytest.mark.parametrize("method", [Authority.create, Authority.load], ids=["create", "load"])
def test_a_ca_for_another_admin_network_is_refused(tmp_path: Path, method: Callable[[Path, Spec], Authority]) -> None:
    Authority.create(tmp_path, one_node(network="10.8.0"))
    before = {file: file.read_bytes() for file in tmp_path.rglob("*.pem")}
    with pytest.raises(
        SwarmerError, match=r"is for .*10\.8\.0\.0/24.*, but the cluster needs .*10\.7\.0\.0/24"
    ) as caught:
        method(tmp_path, SPEC)
    assert "`swarmer down nspawn:dev --forget`" in caught.value.hint
    assert {file: file.read_bytes() for file in tmp_path.rglob("*.pem")} == before


def test_constraints_that_a_checker_may_skip_are_refused(tmp_path: Path) -> None:
    constraints = Authority.create(tmp_path, SPEC).scope.constraints
    replace_ca(tmp_path, "pki/docker-ca", constraints, critical=False)
    with pytest.raises(SwarmerError, match=r"docker-ca\.pem is for .*, but the cluster needs"):
        Authority.load(tmp_path, SPEC)
