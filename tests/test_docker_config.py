"""Overlay networks never use addresses of the admin network."""

from ipaddress import IPv4Network

import pytest
from hypothesis import given
from strategies import networks

from swarmer.seed.docker import overlay_pool


@given(network=networks())
def test_the_overlay_pool_is_never_in_the_admin_network(network: IPv4Network) -> None:
    pool = overlay_pool(network)
    assert not pool.overlaps(network)
    assert pool.is_private
    assert pool.prefixlen <= 24  # docker cuts it into networks of this size


@pytest.mark.parametrize(
    ("network", "pool"),
    [
        ("192.168.101.0/24", "10.0.0.0/8"),
        ("10.0.1.0/24", "10.128.0.0/9"),
        ("10.200.0.0/16", "10.0.0.0/9"),
        ("10.0.0.0/8", "172.24.0.0/13"),
    ],
)
def test_the_overlay_pool_depends_on_the_admin_network(network: str, pool: str) -> None:
    assert overlay_pool(IPv4Network(network)) == IPv4Network(pool)
