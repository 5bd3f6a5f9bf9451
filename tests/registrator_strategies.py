"""Hypothesis strategies for what docker says of containers, and a plain one to begin from."""

from typing import Any

from hypothesis import strategies as st

CONTAINER_ID = "c0ffee" * 10 + "c0de"

Inspection = dict[str, Any]


def container(
    *,
    name: str = "web",
    image: str = "example/web:1.2",
    ports: dict[str, Any] | None = None,
    exposed: tuple[str, ...] = (),
    env: tuple[str, ...] = (),
    labels: dict[str, str] | None = None,
    network: str = "bridge",
    networks: dict[str, Any] | None = None,
    state: dict[str, Any] | None = None,
) -> Inspection:
    """What `docker inspect` says, as far as it matters; `ports` maps `80/tcp` to `(address, port)` pairs or None."""
    bindings = {
        key: None if pairs is None else [{"HostIp": address, "HostPort": str(port)} for address, port in pairs]
        for key, pairs in (ports or {}).items()
    }
    return {
        "Id": CONTAINER_ID,
        "Created": "2026-01-01T00:00:00Z",
        "Name": f"/{name}",
        "Image": "sha256:" + "ab" * 32,
        "State": {"Status": "running", "Running": True, "Pid": 1, "ExitCode": 0, **(state or {})},
        "Config": {
            "Image": image,
            "Env": list(env),
            "Labels": labels or {},
            "ExposedPorts": {key: {} for key in (*exposed, *bindings)},
        },
        "HostConfig": {"NetworkMode": network},
        "NetworkSettings": {
            "Ports": bindings,
            "IPAddress": "172.17.0.2" if network == "bridge" else "",
            "Networks": networks or ({network: {"IPAddress": "172.17.0.2"}} if network == "bridge" else {}),
        },
    }


# Docker's API takes any text but NUL in a value, and lists it as UTF-8.
values = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
port_numbers = st.sampled_from([53, 80, 443, 8080]) | st.integers(1, 65535)
attribute_names = st.sampled_from(
    [
        *(
            "NAME",
            "ID",
            "TAGS",
            "IGNORE",
            "REGION",
            "CHECK_HTTP",
            "CHECK_HTTPS",
            "CHECK_CMD",
            "CHECK_SCRIPT",
            "check_ttl",
        ),
        *("CHECK_TTL", "CHECK_TCP", "CHECK_GRPC", "CHECK_INTERVAL", "CHECK_TIMEOUT", "CHECK_INITIAL_STATUS", "", "a-b"),
        *("CHECK_DEREGISTER_AFTER", "consul-x", "registrator", "registrator-container", "name", "é"),
    ]
)


@st.composite
def metadata_keys(draw: st.DrawFn) -> str:
    """Names of variables and labels: of services, of one port's service, and others."""
    name = draw(attribute_names)
    prefix = draw(st.sampled_from(["SERVICE_", "SERVICE_", "SERVICE_80_", "SERVICE_443_", "service_", "com.docker.x."]))
    return prefix + name


metadata = st.dictionaries(metadata_keys(), values, max_size=8)
addresses = st.sampled_from(["0.0.0.0", "::", "", "127.0.0.1", "::1", "192.0.2.7", "2001:db8::7"])
bindings = st.none() | st.lists(st.tuples(addresses, st.integers(0, 65535)), max_size=3)


states: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        *({}, {}, {"Running": False, "Status": "exited", "ExitCode": 3}, {"Restarting": True}),
        *({"Health": {"Status": status}} for status in ("starting", "healthy", "unhealthy", "none")),
    ]
)


@st.composite
def containers(draw: st.DrawFn) -> Inspection:
    """Inspections with any variables, labels, ports and networks."""
    keys = st.builds(lambda port, protocol: f"{port}/{protocol}", port_numbers, st.sampled_from(["tcp", "udp", "sctp"]))
    network = draw(st.sampled_from(["bridge", "host", "none", "back", "container:" + "a" * 64]))
    address = draw(st.sampled_from(["", "10.0.0.3", "fd00::3"]))
    return container(
        name=draw(st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,20}", fullmatch=True)),
        image=draw(
            st.sampled_from(["nginx", "r:5000/team/web:1@sha256:" + "a" * 64, "sha256:" + "ab" * 32, "abababababab"])
        ),
        ports=draw(st.dictionaries(keys, bindings, max_size=4)),
        exposed=tuple(draw(st.lists(keys, max_size=3))),
        env=tuple(f"{key}={value}" for key, value in draw(metadata).items()),
        labels=draw(metadata),
        network=network,
        networks={network: {"IPAddress": address}},
        state=draw(states),
    )
