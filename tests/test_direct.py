"""Nodes are reached past proxies: what is excluded already stays so."""

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmer.clients import direct

NODE = IPv4Address("192.0.2.7")


@pytest.mark.parametrize(
    ("environment", "value"),
    [
        ({}, "192.0.2.7"),
        ({"NO_PROXY": "", "no_proxy": "a.example, .b.example"}, "a.example,.b.example,192.0.2.7"),
        ({"NO_PROXY": "10.0.0.0/8", "no_proxy": "10.0.0.0/8,c"}, "10.0.0.0/8,c,192.0.2.7"),
        ({"no_proxy": "*"}, "*"),
        ({"NO_PROXY": "192.0.2.7"}, "192.0.2.7"),
    ],
)
def test_a_node_is_added_to_what_is_excluded(environment: dict[str, str], value: str) -> None:
    assert direct.no_proxy(NODE, environment=environment) == {"NO_PROXY": value, "no_proxy": value}


@given(st.dictionaries(st.sampled_from(["NO_PROXY", "no_proxy"]), st.text("ab.,* ")))
def test_adding_it_again_changes_nothing(environment: dict[str, str]) -> None:
    once = direct.no_proxy(NODE, environment=environment)
    assert direct.no_proxy(NODE, environment=once) == once


@pytest.mark.parametrize(
    ("environment", "uses"),
    [
        ({}, False),
        ({"https_proxy": ""}, False),
        ({"HTTPS_PROXY": "http://p"}, True),
        ({"all_proxy": "socks5://p"}, True),
    ],
)
def test_a_proxy_is_found_in_either_spelling(environment: dict[str, str], uses: bool) -> None:
    assert direct.uses_proxy(environment) is uses
