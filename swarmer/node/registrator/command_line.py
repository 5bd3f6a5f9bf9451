"""The command line: the options of gliderlabs/registrator, and a few more."""

import argparse
import ipaddress
import os
import socket
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

from swarmer.node.docker_engine import SCHEMES
from swarmer.node.registrator.options import Consul, Options

#: Options that are switches. Go programs also take them as `-internal=true`.
_SWITCHES: Final = ("internal", "explicit", "cleanup")
_TRUE: Final = frozenset({"1", "t", "true"})
_FALSE: Final = frozenset({"0", "f", "false"})


class UsageError(Exception):
    """The command line is invalid; the text is the reason."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def parse(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> Options:
    """The options of a command line.

    Raises:
        UsageError: it is invalid.
    """
    found = _parser(environment).parse_args(_plain(arguments))
    if (found.ttl == 0) != (found.ttl_refresh == 0):
        raise UsageError("-ttl and -ttl-refresh are only valid together")
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
    if urllib.parse.urlsplit(found.docker).scheme not in SCHEMES:
        raise UsageError(f"-docker {found.docker} is not unix://PATH or tcp://HOST:PORT")
    consul = _consul(found)
    return Options(
        consul=consul,
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
        labels_token=_labels_token(found) if found.labels_token_file else consul.token or "",
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
    option("hostname", default=socket.gethostname(), help="name of this host in the IDs of services")
    engine = environment.get("DOCKER_HOST") or Options.docker
    option("docker", default=engine, help="unix://PATH or tcp://HOST:PORT of the docker engine")

    def variable(*names: str) -> str | None:
        return next((environment[name] for name in names if environment.get(name)), None)

    option("token", default=variable("CONSUL_HTTP_TOKEN"), help="secret of the ACL token; prefer CONSUL_HTTP_TOKEN")
    option("token-file", default=variable("CONSUL_HTTP_TOKEN_FILE"), help="file that holds the secret")
    option(
        "labels-token-file",
        default=variable("REGISTRATOR_LABELS_TOKEN_FILE"),
        help="file that holds the secret by which a swarm manager shares labels of swarm services with the other "
        "nodes; if it doesn't exist, none are shared; default: the token for everything else",
    )
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
        raise UsageError(f"expected exactly one registry URI, got {len(found.uri)}: {' '.join(found.uri)}")
    text: str = found.uri[0]
    try:
        uri = urllib.parse.urlsplit(text)
        host, port = uri.hostname, uri.port
    except ValueError as error:
        # urlsplit itself refuses what has half a bracket, or no address in brackets.
        raise UsageError(f"{text} is not a URI: {error}") from error
    schemes = {"consul": "http", "consul-tls": "https"}
    if uri.scheme not in schemes:
        raise UsageError(f"{text} is not a known registry; use consul://HOST:PORT or consul-tls://HOST:PORT")
    if uri.netloc.count("[") != uri.netloc.count("]"):
        raise UsageError(f"{text} is not a URI: its brackets don't match")
    if uri.username is not None or uri.path.strip("/") or uri.query or uri.fragment:
        raise UsageError(f"{text} has more than HOST:PORT; pass the token with CONSUL_HTTP_TOKEN or -token-file")
    if bool(found.cert) != bool(found.key):
        raise UsageError("-cert and -key are only valid together")
    return Consul(
        scheme=schemes[uri.scheme],
        host=host or "127.0.0.1",
        port=port or 8500,
        token=_token(found),
        ca=found.ca,
        certificate=found.cert,
        key=found.key,
    )


def _token(found: argparse.Namespace) -> str | None:
    if not found.token_file:
        return _checked(found.token, "the token") if found.token else None
    return _of_file(found.token_file)


def _labels_token(found: argparse.Namespace) -> str | None:
    return _of_file(found.labels_token_file) if Path(found.labels_token_file).exists() else None


def _of_file(file: str) -> str:
    """The secret of a token that a file holds."""
    try:
        token = Path(file).read_text(encoding="ascii").strip()
    except OSError as error:
        raise UsageError(f"cannot read the token file {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"the token file {file} does not contain a token: it is not plain text") from error
    if not token:
        raise UsageError(f"the token file {file} is empty")
    return _checked(token, f"the content of the token file {file}")


def _checked(token: str, what: str) -> str:
    """A token that is valid in a request; the error doesn't contain it."""
    if not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(f"{what} is not a token: it has blanks, line ends or characters outside ASCII")
    return token


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
