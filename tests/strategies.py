"""Hypothesis strategies for the values of swarmer, shared by the tests."""

from ipaddress import IPv4Network
from typing import Any

from hypothesis import strategies as st

from swarmer.spec import NAME_PATTERN, PRIVATE_BLOCKS, STACKS, ConsulRole, Registry, Server, Spec, SwarmRole
from swarmer.spec.model import DNS_WORDS
from swarmer.spec.stacks import VagrantSettings
from swarmer.spec.values import LOOPBACK_NAMES

MOST_SERVERS = 12

host_names = st.one_of(
    st.integers(1, 99).map(lambda number: f"swarm-{number:02}"),
    st.from_regex(NAME_PATTERN, fullmatch=True).map(str.strip).filter(lambda name: len(name) <= 63),
).filter(lambda name: name not in LOOPBACK_NAMES)
label_names = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,20}[A-Za-z0-9])?", fullmatch=True)
label_values = st.text(st.characters(exclude_categories=("C", "Z")), max_size=30)
vagrant_settings = st.builds(VagrantSettings, box=st.none() | st.just("yanndegat/swarmer"))
labels = st.dictionaries(label_names, label_values, max_size=4)


registries = st.one_of(
    st.just(Registry()),
    st.builds(
        Registry,
        storage=st.just("s3"),
        bucket=st.from_regex(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", fullmatch=True),
        region=st.sampled_from(["eu-west-1", "us-gov-east-1"]),
        endpoint=st.none() | st.just("http://192.168.1.1:9000"),
    ),
)


@st.composite
def networks(draw: st.DrawFn) -> IPv4Network:
    """Private networks, from a /29 to the whole of their block."""
    block = draw(st.sampled_from(PRIVATE_BLOCKS))
    prefix = draw(st.integers(block.prefixlen, 29) | st.just(24))
    index = draw(st.integers(0, 2 ** (prefix - block.prefixlen) - 1))
    return IPv4Network((int(block.network_address) + index * 2 ** (32 - prefix), prefix))


@st.composite
def consul_roles(draw: st.DrawFn, size: int) -> list[ConsulRole]:
    """One role for each of `size` servers, an odd number of them voting."""
    voters = draw(st.integers(0, (size - 1) // 2)) * 2 + 1
    roles = [ConsulRole.SERVER] * voters + [ConsulRole.AGENT] * (size - voters)
    return draw(st.permutations(roles))


@st.composite
def swarm_roles(draw: st.DrawFn, size: int) -> list[SwarmRole]:
    """One role for each of `size` servers, at least one of them managing."""
    leader = draw(st.sampled_from([SwarmRole.MANAGER, SwarmRole.BOTH]))
    others = draw(st.lists(st.sampled_from(SwarmRole), min_size=size - 1, max_size=size - 1))
    return draw(st.permutations([leader, *others]))


@st.composite
def specs(draw: st.DrawFn, max_servers: int = MOST_SERVERS) -> Spec:
    """Any valid spec of 1 to `max_servers` servers, with varied roles, labels and networks."""
    network = draw(networks())
    stack = draw(st.sampled_from(sorted(STACKS)))
    allowed = STACKS[stack].places(network)
    room = len(allowed)
    size = draw(st.integers(1, min(max_servers, room)))
    names = draw(st.lists(host_names, min_size=size, max_size=size, unique=True))
    places = draw(st.lists(st.sampled_from(allowed), min_size=size, max_size=size, unique=True))
    consul, swarm = draw(consul_roles(size)), draw(swarm_roles(size))
    servers = tuple(
        Server(
            name=names[index],
            memory=draw(st.integers(256, 65536)),
            cpus=draw(st.integers(1, 64)),
            ip=network[places[index]],
            consul=consul[index],
            swarm=swarm[index],
            labels=draw(labels),
            vagrant=draw(vagrant_settings),
        )
        for index in range(size)
    )
    return Spec(
        admin_network=network,
        stack=stack,
        dc=draw(host_names.filter(lambda name: name not in DNS_WORDS)),
        servers=servers,
        internet=draw(st.booleans()),
        vagrant=draw(vagrant_settings),
        registry=draw(registries),
    )


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """What a valid `servers.yml` may hold: a spec with keys left out, quoted or called by older names."""
    document = draw(specs()).model_dump(mode="json", exclude_none=True)
    servers: list[dict[str, Any]] = document.pop("servers")
    default_consul, default_swarm = draw(st.booleans()), draw(st.booleans())
    for server in servers:
        for key in ("memory", "cpus"):
            server[key] = draw(st.sampled_from([str, int]))(server[key])
        if default_consul or (server["consul"] == "agent" and draw(st.booleans())):
            del server["consul"]
        if default_swarm or (server["swarm"] == "agent" and draw(st.booleans())):
            del server["swarm"]
        if "box" in server["vagrant"] and draw(st.booleans()):
            server["box"] = server.pop("vagrant")["box"]
        if not server["labels"]:
            del server["labels"]
    if not document["internet"] and draw(st.booleans()):
        del document["internet"]
    if draw(st.booleans()):
        document["box"] = "debian/trixie64"
    return document | {draw(st.sampled_from(["servers", "nodes"])): servers}
