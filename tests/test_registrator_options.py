"""The registrator's command line: the options of gliderlabs/registrator, and its errors."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmer.node.registrator.command_line import UsageError, parse
from swarmer.node.registrator.options import Options

URI = "consul://127.0.0.1:8500"


def options(*arguments: str, **environment: str) -> Options:
    return parse([*arguments, URI], environment)


def test_the_defaults_are_those_that_people_know() -> None:
    found = options()
    assert (found.ip, found.internal, found.explicit, found.ip_label, found.tags) == ("", False, False, "", "")
    assert (found.ttl, found.ttl_refresh, found.resync, found.deregister_always) == (0, 0, 0, True)
    assert (found.retry_attempts, found.retry_interval) == (0, 2.0)
    assert found.docker == "unix:///var/run/docker.sock"


def test_every_known_option_is_obeyed() -> None:
    line = (
        "-ip 10.1.2.3 -internal -explicit -useIpFromLabel address -ttl 60 -ttl-refresh 20 -tags a,b -resync 30 "
        "-deregister on-success -retry-attempts -1 -retry-interval 500 -cleanup -hostname box"
    )
    found = options(*line.split())
    assert (found.ip, found.internal, found.explicit, found.ip_label) == ("10.1.2.3", True, True, "address")
    assert (found.ttl, found.ttl_refresh, found.tags, found.resync) == (60, 20, "a,b", 30)
    assert (found.deregister_always, found.retry_attempts, found.retry_interval) == (False, -1, 0.5)
    assert found.hostname == "box"


@pytest.mark.parametrize("dashes", ["-", "--"])
def test_options_are_written_as_go_programs_take_them(dashes: str) -> None:
    found = options(f"{dashes}internal=true", f"{dashes}explicit=False", f"{dashes}resync=7", f"{dashes}ip", "10.0.0.1")
    assert (found.internal, found.explicit, found.resync, found.ip) == (True, False, 7, "10.0.0.1")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("-ttl 60", "-ttl and -ttl-refresh are only valid together"),
        ("-ttl-refresh 60", "-ttl and -ttl-refresh are only valid together"),
        ("-ttl 60 -ttl-refresh 60", "-ttl must be greater than -ttl-refresh"),
        ("-ttl 60 -ttl-refresh 61", "-ttl must be greater than -ttl-refresh"),
        ("-ttl -60 -ttl-refresh -61", "are seconds, 0 or more"),
        ("-resync -1", "are seconds, 0 or more"),
        ("-retry-interval 0", "-retry-interval must be greater than 0"),
        ("-retry-attempts -2", "-retry-attempts is -1 for endless tries"),
        ("-deregister never", "invalid choice: 'never'"),
        ("-ip here", "-ip here is not an address"),
        ("-internal=maybe", "-internal is true or false, not maybe"),
        ("-resync soon", "invalid int value: 'soon'"),
        ("-no-such-option", "-no-such-option"),
        ("-docker ssh://elsewhere", "-docker ssh://elsewhere is not unix://PATH or tcp://HOST:PORT"),
        ("-cert c.pem", "-cert and -key are only valid together"),
    ],
)
def test_an_invalid_command_line_is_reported(line: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        options(*line.split())


def test_exactly_one_registry_is_needed() -> None:
    with pytest.raises(UsageError, match="required: uri"):
        parse([], {})
    with pytest.raises(UsageError, match="expected exactly one registry URI, got 2"):
        parse([URI, URI], {})


@pytest.mark.parametrize(
    ("uri", "url"),
    [
        ("consul://10.0.0.1:8501", "http://10.0.0.1:8501"),
        ("consul-tls://consul.example:8443", "https://consul.example:8443"),
        ("consul-tls://consul.example", "https://consul.example:8500"),
        ("consul://", "http://127.0.0.1:8500"),
        ("consul://[::1]:8500", "http://[::1]:8500"),
    ],
)
def test_where_consul_is(uri: str, url: str) -> None:
    assert repr(parse([uri], {}).consul) == url


@pytest.mark.parametrize(
    "uri",
    [
        *("consul://[::1", "consul://::1]:8500", "consul://[nonsense]:8500", "consul-tls://[::1]]:8500"),
        *("consul://host:port", "consul://host:99999", "etcd://host:1", "host:8500", ""),
        *("consul://token@host:8500", "consul://host:8500/prefix", "consul://host:8500?token=secret"),
    ],
)
def test_a_uri_that_is_none_is_told(uri: str) -> None:
    with pytest.raises(UsageError):
        parse([uri], {})


@given(st.text())
def test_any_uri_is_accepted_or_reported(text: str) -> None:
    try:
        assert parse(["--", f"consul://{text}"], {}).consul.port
    except UsageError as error:
        assert str(error)


@given(st.lists(st.text(max_size=12) | st.sampled_from(["-ttl", "-internal", "-ip", URI, "5"]), max_size=5))
def test_whatever_the_command_line_it_is_obeyed_or_told(arguments: list[str]) -> None:
    if not {"-h", "--help"} & set(arguments):
        try:
            parse(arguments, {})
        except UsageError as error:
            assert str(error)


def test_the_token_comes_from_a_file_before_all_else(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("of-the-file\n")
    found = options("-token", "given", CONSUL_HTTP_TOKEN="of-the-environment", CONSUL_HTTP_TOKEN_FILE=str(file))
    assert found.consul.token == "of-the-file"
    assert options("-token", "given", CONSUL_HTTP_TOKEN="of-the-environment").consul.token == "given"
    assert options(CONSUL_HTTP_TOKEN="of-the-environment").consul.token == "of-the-environment"
    assert options().consul.token is None


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"\xff\xfe\x00token", "not plain text"),
        ("tökén".encode(), "not plain text"),
        (b"two\ntokens", "is not a token"),
        (b"a b", "is not a token"),
    ],
)
def test_a_token_file_without_a_token_is_reported(tmp_path: Path, content: bytes, sentence: str) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=sentence):
        options("-token-file", str(file))


def test_an_error_does_not_show_the_token(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("se cret")
    for arguments in (["-token-file", str(file)], ["-token", "se cret"]):
        with pytest.raises(UsageError) as error:
            options(*arguments)
        assert "cret" not in str(error.value)


def test_a_token_file_that_can_not_be_read_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read the token file .*: No such file"):
        options("-token-file", str(tmp_path / "none"))
    with pytest.raises(UsageError, match=r"cannot read the token file .*: Is a directory"):
        options("-token-file", str(tmp_path))


def test_certificates_have_the_names_of_consuls_own_variables() -> None:
    names = {"CONSUL_CACERT": "ca", "CONSUL_CLIENT_CERT": "cert", "CONSUL_CLIENT_KEY": "key"}
    found = parse(["consul-tls://c:1"], names).consul
    assert (found.ca, found.certificate, found.key) == ("ca", "cert", "key")
    older = parse(["consul-tls://c:1"], {"CONSUL_TLSCERT": "cert", "CONSUL_TLSKEY": "key"}).consul
    assert (older.certificate, older.key) == ("cert", "key")


def test_an_invalid_command_line_is_reported_without_a_traceback(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_bytes(b"\xff\xff")
    for arguments in (["consul://[::1"], ["-token-file", str(file), URI]):
        done = subprocess.run(
            [sys.executable, "-m", "swarmer.node.registrator", *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        )
        assert done.returncode == 2
        assert done.stderr.startswith("registrator: ")
        assert "Traceback" not in done.stderr


def test_a_consul_that_is_never_reached_ends_the_program_after_the_tries_it_was_given() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "swarmer.node.registrator",
            "-retry-attempts=2",
            "-retry-interval=1",
            "consul://[::1]:1",
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    assert done.returncode == 1
    assert done.stderr.count("WARNING: cannot reach consul at http://[::1]:1") == 1  # not once for each try
    assert "ERROR: cannot reach consul at http://[::1]:1" in done.stderr
    assert "Traceback" not in done.stderr
