import os
import socket
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key, pkcs12
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from harness import servers_yml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from small_specs import one_node

from swarmer.errors import SwarmerError
from swarmer.files import write_private
from swarmer.secrets import authority as pki
from swarmer.secrets import issuer as pki_issuer
from swarmer.secrets.authority import Authority, Identity
from swarmer.secrets.client_files import P12_NAME, ClientFiles, Plane, client_files
from swarmer.secrets.identities import consul_identity, docker_identity, registry_identity

SPEC = one_node()
ADDRESS = SPEC.servers[0].ip
WHERE = {"node": "core-1", "dc": "dev", "stack": "nspawn"}

few = partial(settings, max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])

label = st.from_regex(r"[a-z]([a-z0-9-]{0,12}[a-z0-9])?", fullmatch=True)
domain_name = st.lists(label, min_size=1, max_size=4).map(lambda labels: ".".join([*labels, SPEC.domain]))
address = st.ip_addresses(network=SPEC.admin_network).map(lambda ip: IPv4Address(int(ip)))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(tmp_path_factory.mktemp("authority"), SPEC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "nspawn" / "dev"


def chain(identity: Identity) -> tuple[x509.Certificate, list[x509.Certificate]]:
    leaf, *issuers = x509.load_pem_x509_certificates(identity.certificate)
    return leaf, issuers


def verify_server(identity: Identity, name: str | IPv4Address, trust: bytes) -> None:
    leaf, issuers = chain(identity)
    subject = x509.DNSName(name) if isinstance(name, str) else x509.IPAddress(name)
    store = Store(x509.load_pem_x509_certificates(trust))
    PolicyBuilder().store(store).build_server_verifier(subject).verify(leaf, issuers)


def verify_client(identity: Identity, trust: bytes) -> None:
    leaf, issuers = chain(identity)
    store = Store(x509.load_pem_x509_certificates(trust))
    PolicyBuilder().store(store).build_client_verifier().verify(leaf, issuers)


def names_of(identity: Identity) -> tuple[set[str], set[str]]:
    sans = chain(identity)[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return set(sans.get_values_for_type(x509.DNSName)), set(map(str, sans.get_values_for_type(x509.IPAddress)))


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


# What a certificate is valid for


@few()
@given(
    dns=st.lists(domain_name, min_size=1, max_size=4),
    ip=st.lists(address, max_size=3),
    other=domain_name,
    other_ip=address,
)
def test_a_certificate_verifies_for_exactly_its_names(
    authority: Authority, dns: Sequence[str], ip: Sequence[IPv4Address], other: str, other_ip: IPv4Address
) -> None:
    assume(other not in dns and other_ip not in ip)
    identity = authority.issue(Plane.CONSUL, "core-1", dns=dns, ip=ip, server=True, client=False)
    for name in dns:
        verify_server(identity, name, authority.root.pem)
    for own_address in ip:
        verify_server(identity, own_address, authority.root.pem)
    for wrong in (other, f"x.{dns[0]}", f"{dns[0]}.x", other_ip):
        if wrong not in dns:
            with pytest.raises(VerificationError):
                verify_server(identity, wrong, authority.root.pem)


@few(max_examples=10)
@given(node=label, ip=address)
def test_only_a_consul_server_can_pass_for_one(authority: Authority, node: str, ip: IPv4Address) -> None:
    names = {f"{node}.node.dev.nspawn", "consul.service.dev.nspawn", "localhost"}
    ips = {str(ip), "127.0.0.1"}
    where = {"node": node, "dc": "dev", "stack": "nspawn"}
    agent = consul_identity(authority, **where, ip=ip, server=False)
    server = consul_identity(authority, **where, ip=ip, server=True)
    assert names_of(agent) == (names, ips)
    assert names_of(server) == (names | {"server.dev.nspawn"}, ips)


def test_names_on_the_docker_and_registry_planes(authority: Authority) -> None:
    ips = {"10.7.0.11", "127.0.0.1"}
    own = {"core-1.node.dev.nspawn", "localhost"}
    worker = docker_identity(authority, **WHERE, ip=ADDRESS, manager=False)
    manager = docker_identity(authority, **WHERE, ip=ADDRESS, manager=True)
    registry = registry_identity(authority, **WHERE, ip=ADDRESS)
    assert names_of(worker) == (own, ips)
    assert names_of(manager) == (own | {"swarm.service.dev.nspawn"}, ips)
    assert names_of(registry) == (own | {"registry.service.dev.nspawn"}, ips)


def test_servers_and_clients_are_told_apart(authority: Authority) -> None:
    issue = partial(authority.issue, Plane.CONSUL, "x", dns=["x.dev.nspawn"], ip=[])
    server, client = issue(server=True, client=False), issue(server=False, client=True)
    verify_server(server, "x.dev.nspawn", authority.root.pem)
    verify_client(client, authority.root.pem)
    with pytest.raises(VerificationError):
        verify_client(server, authority.root.pem)
    with pytest.raises(VerificationError):
        verify_server(client, "x.dev.nspawn", authority.root.pem)


def test_a_node_is_a_client_of_consul_and_of_nothing_else(authority: Authority) -> None:
    verify_client(consul_identity(authority, **WHERE, ip=ADDRESS, server=False), authority.root.pem)
    for identity in (
        docker_identity(authority, **WHERE, ip=ADDRESS, manager=True),
        registry_identity(authority, **WHERE, ip=ADDRESS),
    ):
        with pytest.raises(VerificationError):
            verify_client(identity, authority.root.pem)


@pytest.mark.parametrize("trusted", Plane)
def test_a_plane_trusts_its_own_certificates_only(authority: Authority, trusted: Plane) -> None:
    for plane in Plane:
        client = authority.issue(plane, "x", dns=["x.dev.nspawn"], ip=[], server=False, client=True)
        if plane is trusted:
            verify_client(client, authority.plane_bundle(trusted))
        else:
            with pytest.raises(VerificationError):
                verify_client(client, authority.plane_bundle(trusted))


@pytest.mark.parametrize(
    "what", [{"dns": [], "ip": [], "server": True}, {"dns": ["localhost"], "ip": [], "server": False}]
)
def test_a_certificate_for_nothing_is_refused(authority: Authority, what: dict[str, list[str]]) -> None:
    with pytest.raises(ValueError, match="a leaf needs"):
        authority.issue(Plane.CONSUL, "x", client=False, **what)  # type: ignore[arg-type]


# How certificates are made


def test_every_certificate_is_p256_and_lasts_a_year_at_most(authority: Authority) -> None:
    leaf, issuers = chain(consul_identity(authority, **WHERE, ip=ADDRESS, server=True))
    certificates = [leaf, *issuers, authority.root.certificate]
    assert len(certificates) == 3
    for certificate in certificates:
        public_key = certificate.public_key()
        assert isinstance(public_key, ec.EllipticCurvePublicKey)
        assert isinstance(public_key.curve, ec.SECP256R1)
        assert certificate.signature_hash_algorithm is not None
        assert certificate.signature_hash_algorithm.name == "sha256"
        assert certificate.not_valid_after_utc - certificate.not_valid_before_utc <= timedelta(days=365)
        assert certificate.not_valid_before_utc <= datetime.now(UTC) - timedelta(hours=1)
    assert len({certificate.serial_number for certificate in certificates}) == 3


def test_no_ca_can_sign_more_cas_than_meant(authority: Authority) -> None:
    lengths = [
        issuer.certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
        for issuer in (authority.root, *authority.planes.values())
    ]
    assert lengths == [1, 0, 0, 0]


def test_no_certificate_outlives_its_ca(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority.create(folder, SPEC)
    later = pki_issuer.now() + timedelta(days=300)
    monkeypatch.setattr(pki_issuer, "now", lambda: later)
    leaf, (issuer,) = chain(registry_identity(authority, **WHERE, ip=ADDRESS))
    assert leaf.not_valid_after_utc == issuer.not_valid_after_utc


def test_the_key_fits_and_is_never_shown(authority: Authority) -> None:
    identity = consul_identity(authority, **WHERE, ip=ADDRESS, server=True)
    key = load_pem_private_key(identity.key, password=None)
    assert identity.key.startswith(b"-----BEGIN PRIVATE KEY-----")
    assert key.public_key() == chain(identity)[0].public_key()
    for text in (repr(identity), str(identity), repr(authority)):
        assert "PRIVATE KEY" not in text
        assert identity.key.decode().splitlines()[1] not in text


# The folder


def test_everything_is_private_whatever_the_umask(folder: Path) -> None:
    before = os.umask(0o000)
    try:
        Authority.create(folder, SPEC).write_client_files(folder)
    finally:
        os.umask(before)
    for path in (folder.parent, folder, *folder.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_opened_again_nothing_changes(folder: Path) -> None:
    Authority.create(folder, SPEC).write_client_files(folder)
    before = content(folder)
    assert not Authority.create(folder, SPEC).write_client_files(folder)
    assert content(folder) == before
    assert {"ca.pem", "ca-key.pem", "pki/consul-ca.pem", "pki/docker-ca-key.pem"} <= set(before)


def test_processes_that_create_it_at_the_same_time_get_the_same_ca(folder: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from swarmer.secrets.authority import Authority;"
        "from swarmer.secrets.client_files import Plane;"
        "from swarmer.spec.file import load;"
        "authority = Authority.create(Path(sys.argv[1]), load(Path(sys.argv[2])));"
        "print(b''.join(map(authority.bundle, Plane)).decode())"
    )
    (tmp_path / "servers.yml").write_text(servers_yml("10.7.0", dc="dev"))
    command = [sys.executable, "-c", program, str(folder), str(tmp_path / "servers.yml")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert outputs[0].count("BEGIN CERTIFICATE") == 6
    assert len(set(outputs)) == 1


@pytest.mark.parametrize("interrupted_at", range(8))
def test_an_interrupted_creation_is_finished(
    folder: Path, monkeypatch: pytest.MonkeyPatch, interrupted_at: int
) -> None:
    written: list[Path] = []

    def die_at(path: Path, data: bytes) -> None:
        if len(written) == interrupted_at:
            raise KeyboardInterrupt
        written.append(path)
        write_private(path, data)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        for module in (pki, pki_issuer):
            patch.setattr(module, "write_private", die_at)
        Authority.create(folder, SPEC)
    before = content(folder)
    authority = Authority.create(folder, SPEC)
    assert before.items() <= content(folder).items()
    verify_server(registry_identity(authority, **WHERE, ip=ADDRESS), "localhost", authority.root.pem)


def other_ca_in(folder: Path) -> Path:
    other = folder.parent / "other"
    Authority.create(other, SPEC)
    return other


def replace_by_garbage(name: str, folder: Path) -> None:
    (folder / name).write_bytes(b"garbage")


def replace_by_another(name: str, folder: Path) -> None:
    (folder / name).write_bytes((other_ca_in(folder) / name).read_bytes())


def remove(name: str, folder: Path) -> None:
    (folder / name).unlink()


def replace_issuing_ca_by_another(folder: Path) -> None:
    replace_by_another("pki/docker-ca.pem", folder)
    replace_by_another("pki/docker-ca-key.pem", folder)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (partial(replace_by_garbage, "ca.pem"), "certificate .*ca.pem can't be read"),
        (partial(replace_by_garbage, "ca-key.pem"), "key .*ca-key.pem can't be read"),
        (partial(replace_by_garbage, "pki/registry-ca.pem"), "registry-ca.pem can't be read"),
        (partial(replace_by_another, "ca.pem"), "ca-key.pem is not the key of"),
        (partial(replace_by_another, "pki/consul-ca-key.pem"), "consul-ca-key.pem is not the key of"),
        (partial(remove, "ca.pem"), "ca.pem is missing"),
        (partial(remove, "ca-key.pem"), "ca-key.pem is missing"),
        (partial(remove, "pki/consul-ca-key.pem"), "consul-ca-key.pem is missing"),
        (replace_issuing_ca_by_another, "docker-ca.pem was signed by another CA"),
    ],
)
def test_what_is_damaged_is_refused_and_left_as_it_is(folder: Path, harm: Callable[[Path], None], message: str) -> None:
    Authority.create(folder, SPEC)
    harm(folder)
    before = content(folder)
    for method in (Authority.create, Authority.load):
        with pytest.raises(SwarmerError, match=message) as caught:
            method(folder, SPEC)
        assert "`swarmer down nspawn:dev --forget`" in caught.value.hint
        assert content(folder) == before


def test_loading_creates_nothing(folder: Path) -> None:
    with pytest.raises(SwarmerError, match=r"the CA of nspawn:dev can't be used: .*/ca-key\.pem is missing") as caught:
        Authority.load(folder, SPEC)
    assert "`swarmer down nspawn:dev --forget`" in caught.value.hint
    assert not folder.parent.exists()
    created = Authority.create(folder, SPEC)
    before = content(folder)
    loaded = Authority.load(folder, SPEC)
    assert [loaded.bundle(plane) for plane in Plane] == [created.bundle(plane) for plane in Plane]
    assert content(folder) == before


@pytest.mark.parametrize("plane", Plane)
def test_a_missing_plane_is_created_by_create_alone(folder: Path, plane: Plane) -> None:
    """As after a creation that was interrupted."""
    Authority.create(folder, SPEC)
    for file in folder.glob(f"pki/{plane}-ca*"):
        file.unlink()
    before = content(folder)
    with pytest.raises(SwarmerError, match=f"{plane}-ca-key.pem is missing"):
        Authority.load(folder, SPEC)
    assert content(folder) == before
    Authority.create(folder, SPEC)
    Authority.load(folder, SPEC)
    assert before.items() < content(folder).items()


def test_another_clusters_folder_is_refused(folder: Path) -> None:
    Authority.create(folder, SPEC)
    with pytest.raises(SwarmerError, match="belongs to another cluster"):
        Authority.load(folder, SPEC.model_copy(update={"dc": "live"}))


@pytest.mark.parametrize("days", [-1, 366])
def test_a_ca_whose_time_is_not_now_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch, days: int) -> None:
    Authority.create(folder, SPEC)
    then = pki_issuer.now() + timedelta(days=days)
    monkeypatch.setattr(pki_issuer, "now", lambda: then)
    with pytest.raises(SwarmerError, match="which is not now"):
        Authority.create(folder, SPEC)


# The client certificates


def test_each_client_certificate_opens_its_plane(folder: Path) -> None:
    authority = Authority.create(folder, SPEC)
    assert not authority.write_client_files(folder)
    for plane in Plane:
        files = client_files(folder, plane)
        identity = Identity(files.certificate.read_bytes(), files.key.read_bytes())
        verify_client(identity, authority.plane_bundle(plane))
        assert load_pem_private_key(identity.key, None).public_key() == chain(identity)[0].public_key()
        assert files.trust.read_bytes() == authority.bundle(plane)


def test_the_docker_client_finds_its_files_in_one_folder(folder: Path) -> None:
    files = client_files(folder, Plane.DOCKER)
    assert files == ClientFiles(folder / "docker/cert.pem", folder / "docker/key.pem", folder / "docker/ca.pem")


def test_the_trusted_cas_are_replaced_as_a_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader sees the file as it was, or as it will be."""
    authority = Authority.create(folder, SPEC)
    authority.write_client_files(folder)
    trust = client_files(folder, Plane.CONSUL).trust
    old = trust.open("rb")
    monkeypatch.setattr(Authority, "bundle", lambda *_: b"another")
    authority.write_client_files(folder)
    with old:
        assert x509.load_pem_x509_certificates(old.read())
    assert trust.read_bytes() == b"another"


def test_the_browsers_file_holds_the_client_certificate(folder: Path) -> None:
    Authority.create(folder, SPEC).write_client_files(folder)
    bag = pkcs12.load_pkcs12((folder / P12_NAME).read_bytes(), pki.P12_PASSWORD.encode())
    leaf, issuer = x509.load_pem_x509_certificates(client_files(folder, Plane.CONSUL).certificate.read_bytes())
    root = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    assert bag.cert is not None and bag.cert.certificate == leaf
    assert bag.key is not None and bag.key.public_key() == leaf.public_key()
    assert [extra.certificate for extra in bag.additional_certs] == [issuer, root]


def test_a_lost_browser_file_is_written_again(folder: Path) -> None:
    authority = Authority.create(folder, SPEC)
    authority.write_client_files(folder)
    before = content(folder)
    (folder / P12_NAME).unlink()
    assert not authority.write_client_files(folder)
    after = content(folder)
    assert after.pop(P12_NAME)
    assert after.items() <= before.items()


def use_another_authority(folder: Path) -> None:
    other = other_ca_in(folder)
    for name in (
        "ca.pem",
        "ca-key.pem",
        *(f"pki/{plane}-ca{part}.pem" for plane in Plane for part in ("", "-key")),
    ):
        (folder / name).write_bytes((other / name).read_bytes())


@pytest.mark.parametrize(
    "harm",
    [
        use_another_authority,
        partial(replace_by_garbage, "client.pem"),
        partial(replace_by_garbage, "client-key.pem"),
        partial(remove, "client-key.pem"),
    ],
)
def test_an_unusable_client_certificate_is_renewed(folder: Path, harm: Callable[[Path], None]) -> None:
    Authority.create(folder, SPEC).write_client_files(folder)
    old = (folder / P12_NAME).read_bytes()
    harm(folder)
    authority = Authority.create(folder, SPEC)
    assert authority.write_client_files(folder)
    assert (folder / P12_NAME).read_bytes() != old
    certificate = client_files(folder, Plane.CONSUL).certificate
    verify_client(Identity(certificate.read_bytes(), b""), authority.root.pem)
    assert not authority.write_client_files(folder)


def test_a_client_certificate_is_renewed_a_month_before_its_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = pki_issuer.now()
    at = {"day": 0}
    monkeypatch.setattr(pki_issuer, "now", lambda: start + timedelta(days=at["day"]))
    authority = Authority.create(folder, SPEC)
    with monkeypatch.context() as patch:
        patch.setattr(pki_issuer, "LIFETIME", timedelta(days=100))
        authority.write_client_files(folder)
    renewed = []
    for at["day"] in (69, 70, 71, 340, 360):
        renewed.append(authority.write_client_files(folder))
    # From then on it lasts as long as its CA: a new one would not last longer.
    assert renewed == [False, True, False, False, False]


# Other implementations agree


@pytest.fixture
def openssl(folder: Path) -> Callable[[str, Identity, bytes], bool]:
    def verify(options: str, identity: Identity, trust: bytes) -> bool:
        leaf, trusted = folder / "leaf.pem", folder / "trusted.pem"
        leaf.write_bytes(identity.certificate)
        trusted.write_bytes(trust)
        command = ["openssl", "verify", "-x509_strict", "-no-CApath", "-no-CAstore", "-CAfile", str(trusted)]
        done = subprocess.run([*command, "-untrusted", str(leaf), *options.split(), str(leaf)], capture_output=True)
        return done.returncode == 0

    folder.mkdir(parents=True)
    return verify


def test_openssl_agrees(authority: Authority, openssl: Callable[[str, Identity, bytes], bool]) -> None:
    root, server = authority.root.pem, docker_identity(authority, **WHERE, ip=ADDRESS, manager=True)
    assert openssl("-purpose sslserver -verify_hostname swarm.service.dev.nspawn", server, root)
    assert openssl("-purpose sslserver -verify_ip 10.7.0.11", server, root)
    assert not openssl("-verify_hostname consul.service.dev.nspawn", server, root)
    assert not openssl("-verify_ip 10.7.0.12", server, root)
    assert not openssl("-purpose sslclient", server, root)
    assert openssl("-partial_chain", server, authority.plane_bundle(Plane.DOCKER))
    assert not openssl("-partial_chain", server, authority.plane_bundle(Plane.CONSUL))


def handshake(folder: Path, server: Identity, client: Identity | None, authority: Authority) -> str:
    """Mutual TLS on loopback, by name; returns the common name the server saw."""
    (folder / "trust.pem").write_bytes(authority.bundle(Plane.CONSUL))
    (folder / "client-trust.pem").write_bytes(authority.plane_bundle(Plane.CONSUL))
    accepting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    accepting.verify_mode = ssl.CERT_REQUIRED
    accepting.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_STRICT
    accepting.load_verify_locations(folder / "client-trust.pem")
    connecting = ssl.create_default_context(cafile=str(folder / "trust.pem"))
    connecting.verify_flags |= ssl.VERIFY_X509_STRICT
    for context, identity in ((accepting, server), (connecting, client)):
        if identity:
            (folder / "chain.pem").write_bytes(identity.certificate)
            (folder / "key.pem").write_bytes(identity.key)
            context.load_cert_chain(folder / "chain.pem", folder / "key.pem")
    near, far = socket.create_server(("127.0.0.1", 0)), socket.socket()
    errors: list[Exception] = []

    def connect() -> None:
        try:
            far.connect(near.getsockname())
            with connecting.wrap_socket(far, server_hostname="consul.service.dev.nspawn") as secured:
                secured.recv(1)
        except OSError as error:
            errors.append(error)

    with near, far:
        near.settimeout(10)
        far.settimeout(10)
        thread = threading.Thread(target=connect)
        thread.start()
        try:
            accepted = near.accept()[0]
            with accepted, accepting.wrap_socket(accepted, server_side=True) as secured:
                secured.sendall(b"!")
                peer = secured.getpeercert()
        finally:
            thread.join()
    if errors:
        raise errors[0]
    assert peer
    return next(value for ((name, value),) in peer["subject"] if name == "commonName")  # type: ignore


def test_mutual_tls(tmp_path: Path, authority: Authority) -> None:
    server = consul_identity(authority, **WHERE, ip=ADDRESS, server=True)
    issue = partial(authority.issue, dns=["localhost"], ip=[], server=False, client=True)
    assert handshake(tmp_path, server, issue(Plane.CONSUL, "harness"), authority) == "harness"
    with pytest.raises(ssl.SSLError):
        handshake(tmp_path, server, issue(Plane.DOCKER, "harness"), authority)
    with pytest.raises(ssl.SSLError):
        handshake(tmp_path, server, None, authority)
    with pytest.raises(ssl.SSLError):
        handshake(tmp_path, registry_identity(authority, **WHERE, ip=ADDRESS), issue(Plane.CONSUL, "x"), authority)
