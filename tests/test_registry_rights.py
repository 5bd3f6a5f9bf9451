"""Who may do what at the registry."""

import base64
import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmer.node.registry import access
from swarmer.node.registry.access import ClientCredentials, Right
from swarmer.node.registry.errors import RegistryError
from swarmer.node.registry.settings import Settings

SETTINGS = Settings(
    name="swarm-01",
    nodes={"swarm-01": "10.0.0.1", "swarm-02": "10.0.0.2", "swarm-03": "10.0.0.3"},
    domain="dev.nspawn",
    storage="filesystem",
    organization="swarmer nspawn:dev",
    user="swarmer",
    password_sha256=hashlib.sha256(b"right").hexdigest(),
    secret="secret",
)
NOW = 1_000_000.0


def certificate(
    name: str, plane: str = "registry", verified: str = "SUCCESS", cluster: str = "nspawn:dev"
) -> ClientCredentials:
    return ClientCredentials(verified, f"CN={name},O=swarmer {cluster}", f"CN={plane} CA,O=swarmer nspawn:dev")


def basic(user: str, password: str) -> ClientCredentials:
    return ClientCredentials(authorization=f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}")


def bearer(token: str) -> ClientCredentials:
    return ClientCredentials(authorization=f"Bearer {token}")


@pytest.mark.parametrize(
    ("credentials", "right"),
    [
        (ClientCredentials(), Right.NONE),
        (certificate("swarmer-client"), Right.PUSH),
        (certificate("swarm-01."), Right.PULL),
        (certificate("swarm-01"), Right.NONE),
        (certificate("swarmer-client", plane="consul"), Right.NONE),
        (certificate("swarmer-client", plane="root"), Right.NONE),
        (certificate("swarmer-client", verified="FAILED:expired"), Right.NONE),
        (certificate("swarmer-client", verified="NONE"), Right.NONE),
        (certificate("swarmer-client", cluster="nspawn:other"), Right.NONE),
        (basic("swarmer", "right"), Right.PUSH),
    ],
)
def test_what_certificates_and_passwords_allow(credentials: ClientCredentials, right: Right) -> None:
    assert access.right_of(credentials, SETTINGS, NOW) is right


@pytest.mark.parametrize(
    "credentials",
    [
        basic("swarmer", "wrong"),
        basic("someone", "right"),
        basic("", ""),
        ClientCredentials(authorization="Basic ?"),
        ClientCredentials(authorization="Basic"),
        ClientCredentials(authorization="Digest x"),
        bearer(""),
        bearer("a.b"),
        bearer("a.b.c"),
        bearer("ä.ö"),
    ],
)
def test_wrong_credentials_are_an_error_not_nothing(credentials: ClientCredentials) -> None:
    with pytest.raises(RegistryError) as refused:
        access.right_of(credentials, SETTINGS, NOW)
    assert refused.value.status == 401


@pytest.mark.parametrize("right", Right)
def test_a_token_is_good_for_its_time_and_on_all_nodes(right: Right) -> None:
    token = access.token(right, SETTINGS, NOW)
    end = access.TOKEN_LIFETIME + access.CLOCKS_DIFFER
    for later in (-access.CLOCKS_DIFFER, 0, end - 1):
        assert access.right_of(bearer(token), SETTINGS, NOW + later) is right
    with pytest.raises(RegistryError, match="expired"):
        access.right_of(bearer(token), SETTINGS, NOW + end)


@given(st.data())
def test_a_token_that_was_changed_is_refused(data: st.DataObject) -> None:
    token = access.token(Right.PULL, SETTINGS, NOW)
    at = data.draw(st.integers(0, len(token) - 1))
    letter = data.draw(st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.="))
    changed = token[:at] + letter + token[at + 1 :]
    if changed != token:
        with pytest.raises(RegistryError):
            access.right_of(bearer(changed), SETTINGS, NOW)


def test_the_better_of_certificate_and_credentials_counts() -> None:
    node = certificate("swarm-02.")
    both = ClientCredentials(node.verified, node.subject, node.issuer, basic("swarmer", "right").authorization)
    assert access.right_of(both, SETTINGS, NOW) is Right.PUSH
    assert access.node_of(both, SETTINGS) == "swarm-02"
    assert access.node_of(certificate("swarmer-client"), SETTINGS) is None


def test_a_client_without_credentials_gets_a_challenge_and_any_other_403() -> None:
    node = certificate("swarm-01.")
    for needed, credentials in ((Right.PULL, ClientCredentials()), (Right.PUSH, node)):
        with pytest.raises(RegistryError) as refused:
            access.check(needed, credentials, SETTINGS, NOW, "host:5000")
        assert refused.value.status == 401
        assert refused.value.headers["WWW-Authenticate"] == (
            'Bearer realm="https://host:5000/token",service="registry.service.dev.nspawn"'
        )
    # It has asked for a token, so a challenge would lead it nowhere.
    asked = replace(node, authorization=bearer(access.token(Right.PULL, SETTINGS, NOW)).authorization)
    with pytest.raises(RegistryError) as refused:
        access.check(Right.PUSH, asked, SETTINGS, NOW, "host:5000")
    assert (refused.value.status, refused.value.code) == (403, "DENIED")


def test_no_secret_is_shown() -> None:
    assert "secret" not in repr(SETTINGS).replace("secrets", "")
    assert SETTINGS.password_sha256 not in repr(SETTINGS)


@given(st.integers(1, 9))
def test_two_majorities_have_a_node_in_common(count: int) -> None:
    nodes = {f"n{number}": f"10.0.0.{number}" for number in range(count)}
    majority = Settings("n0", nodes, "d", "filesystem", "o", "u", "p", "s").majority
    assert 2 * majority > count >= majority
