"""The command line: the option names that people know from gliderlabs/registrator, and a few of our own."""

import argparse
import ipaddress
import os
import socket
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

#: Options that are switches. Go programs also take them as `-internal=true`.
_SWITCHES: Final = ("internal", "explicit", "cleanup")
_TRUE: Final = frozenset({"1", "t", "true"})
_FALSE: Final = frozenset({"0", "f", "false"})


class UsageError(Exception):
    """The command line can't be followed; the text says why."""


@dataclass(frozen=True)
class Consul:
    """How to reach the consul agent.

    Attributes:
        scheme: `http` or `https`.
        token: the secret of the ACL token, or None to be the agent's default.
        ca, certificate, key: PEM files, or None.
    """

    scheme: str
    host: str
    port: int
    token: str | None = None
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None

    def __repr__(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"


@dataclass(frozen=True)
class Options:
    """All that the command line decides.

    Attributes:
        hostname: first part of every service's ID, and our mark on what we registered.
        ip: address of published ports, or "" to find it out.
        internal: announce a container's own address and port instead of the published ones.
        explicit: announce only what has a SERVICE_NAME.
        ip_label: container label that holds the address to announce, or "".
        tags: given to every service.
        ttl, ttl_refresh: seconds; 0 for services without a heartbeat.
        resync: seconds between two comparisons of everything; 0 for never.
        deregister_always: False keeps the services of a container that failed.
        retry_attempts: how often to try to reach consul again at the start; -1 for ever.
        retry_interval: seconds between two tries.
        docker: URL of the docker engine.
    """

    consul: Consul
    hostname: str
    ip: str = ""
    internal: bool = False
    explicit: bool = False
    ip_label: str = ""
    tags: str = ""
    ttl: int = 0
    ttl_refresh: int = 0
    resync: int = 0
    deregister_always: bool = True
    retry_attempts: int = 0
    retry_interval: float = 2.0
    docker: str = "unix:///var/run/docker.sock"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def parse(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> Options:
    """The options of a command line.

    Raises:
        UsageError: it can't be followed.
    """
    found = _parser(environment).parse_args(_plain(arguments))
    if (found.ttl == 0) != (found.ttl_refresh == 0):
        raise UsageError("-ttl and -ttl-refresh are given together, or not at all")
    if found.ttl < 0 or found.ttl_refresh < 0 or found.resync < 0:
        raise UsageError("-ttl, -ttl-refresh and -resync are seconds, 0 or more")
    if found.ttl and found.ttl <= found.ttl_refresh:
        raise UsageError("-ttl must be greater than -ttl-refresh")
    if found.retry_interval <= 0:
        raise UsageError("-retry-interval must be greater than 0")
    if found.retry_attempts < -1:
        raise UsageError("-retry-attempts is -1 for endless tries, or the number of them")
    if found.ip and not _is_address(found.ip):
        raise UsageError(f"-ip {found.ip} is not an address")
    return Options(
        consul=_consul(found),
        hostname=found.hostname,
        ip=found.ip,
        internal=found.internal,
        explicit=found.explicit,
        ip_label=found.ip_label,
        tags=found.tags,
        ttl=found.ttl,
        ttl_refresh=found.ttl_refresh,
        resync=found.resync,
        deregister_always=found.deregister == "always",
        retry_attempts=found.retry_attempts,
        retry_interval=found.retry_interval / 1000,
        docker=found.docker,
    )


def _parser(environment: Mapping[str, str]) -> _Parser:
    parser = _Parser(prog="registrator", description="Announces containers in consul.", allow_abbrev=False)

    def option(name: str, **details: object) -> None:
        parser.add_argument(f"-{name}", f"--{name}", **details)  # type: ignore[arg-type]

    parser.add_argument("uri", nargs="+", help="consul://HOST:PORT or consul-tls://HOST:PORT")
    option("ip", default="", help="IP for ports mapped to the host")
    option("internal", action="store_true", help="use internal ports instead of published ones")
    option("explicit", action="store_true", help="only register containers which have a SERVICE_NAME")
    option("useIpFromLabel", dest="ip_label", default="", help="use the IP that is stored in this container label")
    option("ttl-refresh", type=int, default=0, help="seconds between two heartbeats of the services")
    option("ttl", type=int, default=0, help="seconds after which a service without a heartbeat is critical")
    option("tags", default="", help="comma-separated tags for all registered services")
    option("resync", type=int, default=0, help="seconds between two comparisons of everything; 0 for never")
    option("deregister", choices=("always", "on-success"), default="always", help="which exits deregister")
    option("retry-attempts", type=int, default=0, help="tries to reach consul after the first; -1 for endless ones")
    option("retry-interval", type=int, default=2000, help="milliseconds between two tries")
    option("cleanup", action="store_true", help="remove dangling services; always done, with or without this option")
    option("hostname", default=socket.gethostname(), help="name of this host in IDs of services")
    option("docker", default=environment.get("DOCKER_HOST") or Options.docker, help="URL of the docker engine")

    def variable(*names: str) -> str | None:
        return next((environment[name] for name in names if environment.get(name)), None)

    option("token", default=variable("CONSUL_HTTP_TOKEN"), help="secret of the ACL token; prefer CONSUL_HTTP_TOKEN")
    option("token-file", default=variable("CONSUL_HTTP_TOKEN_FILE"), help="file that holds the secret")
    option("ca", default=variable("CONSUL_CACERT"), help="CA certificates that consul's is checked against")
    option("cert", default=variable("CONSUL_CLIENT_CERT", "CONSUL_TLSCERT"), help="our certificate")
    option("key", default=variable("CONSUL_CLIENT_KEY", "CONSUL_TLSKEY"), help="the key of our certificate")
    return parser


def _plain(arguments: Sequence[str]) -> list[str]:
    """Switches as argparse knows them: `-internal=true` becomes `-internal`, `-internal=false` nothing."""
    plain = []
    for argument in arguments:
        name, equals, value = argument.lstrip("-").partition("=")
        if argument.startswith("-") and equals and name in _SWITCHES:
            if value.lower() in _TRUE:
                plain.append(f"-{name}")
            elif value.lower() not in _FALSE:
                raise UsageError(f"-{name} is true or false, not {value}")
        else:
            plain.append(argument)
    return plain


def _consul(found: argparse.Namespace) -> Consul:
    if len(found.uri) != 1:
        raise UsageError(f"exactly one registry URI is needed, not {len(found.uri)}: {' '.join(found.uri)}")
    uri = urllib.parse.urlsplit(found.uri[0])
    schemes = {"consul": "http", "consul-tls": "https"}
    if uri.scheme not in schemes:
        raise UsageError(f"{found.uri[0]} is no registry we know; write consul://HOST:PORT or consul-tls://HOST:PORT")
    try:
        port = uri.port
    except ValueError as error:
        raise UsageError(f"{found.uri[0]}: {error}") from error
    if bool(found.cert) != bool(found.key):
        raise UsageError("a certificate and its key are given together: -cert and -key")
    return Consul(
        scheme=schemes[uri.scheme],
        host=uri.hostname or "127.0.0.1",
        port=port or 8500,
        token=_token(found),
        ca=found.ca,
        certificate=found.cert,
        key=found.key,
    )


def _token(found: argparse.Namespace) -> str | None:
    if not found.token_file:
        return found.token or None
    try:
        token = Path(found.token_file).read_text().strip()
    except OSError as error:
        raise UsageError(f"the token file {found.token_file} can't be read: {error.strerror}") from error
    if not token:
        raise UsageError(f"the token file {found.token_file} is empty")
    return token


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
