"""What `servers.yml` may hold, what is refused, and with which message."""

import io
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from ruamel.yaml import YAML
from strategies import documents, specs

from swarmer.errors import SpecError
from swarmer.spec import ConsulRole, Server, Spec, SwarmRole, for_worker
from swarmer.spec.file import json_schema, load, resized
from swarmer.spec.rules import advice

ORIGINAL = """\
admin_network: 192.168.101.0/24
stack: vagrant
dc: dev

servers:
  - name    : "swarm-01"
    memory  : "3072"
    cpus    : "2"
    ip      : 192.168.101.101
  - name    : "swarm-02"
    memory  : "3072"
    cpus    : "2"
    ip      : 192.168.101.102
  - name    : "swarm-03"
    memory  : "3072"
    cpus    : "2"
    ip      : 192.168.101.103
"""

Load = Callable[..., Spec]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spec")


@pytest.fixture(scope="module")
def load_text(folder: Path) -> Load:
    """Loads a text as the file that holds it."""

    def read(text: str | bytes, **options: Any) -> Spec:
        path = folder / "servers.yml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode(errors="surrogatepass"))
        return load(path, **options)

    return read


def entry(number: int, *, network: str = "192.168.101", **keys: object) -> dict[str, Any]:
    return {"name": f"n{number}", "memory": 512, "cpus": 1, "ip": f"{network}.{number + 1}"} | keys


def document(*entries: object, **keys: object) -> str:
    """A file of these servers."""
    content = {"admin_network": "192.168.101.0/24", "stack": "nspawn", "dc": "dev"} | keys
    return dumped(content | {"servers": list(entries)})


def dumped(content: object) -> str:
    stream = io.StringIO()
    YAML(typ="safe", pure=True).dump(content, stream)  # pyright: ignore[reportUnknownMemberType]
    return stream.getvalue()


def roles(spec: Spec) -> str:
    """Roles in file order, such as `S/both A/agent`."""
    return " ".join(f"{server.consul[0].upper()}/{server.swarm}" for server in spec.servers)


def test_the_file_of_the_original_project_works_word_for_word(load_text: Load) -> None:
    spec = load_text(ORIGINAL)
    assert (spec.name, spec.domain) == ("vagrant:dev", "dev.vagrant")
    assert str(spec.host_address) == "192.168.101.1"
    assert [server.name for server in spec.servers] == ["swarm-01", "swarm-02", "swarm-03"]
    assert {(server.memory, server.cpus) for server in spec.servers} == {(3072, 2)}
    assert str(spec.server("swarm-03").ip) == "192.168.101.103"
    assert spec.internet is False
    assert spec.consul_servers == spec.managers == spec.servers
    assert advice(spec.servers) == []


def test_the_file_of_the_repository_is_the_same_on_nspawn(load_text: Load) -> None:
    shipped = load(Path(__file__).parent.parent / "servers.yml")
    assert shipped == load_text(ORIGINAL, stack="nspawn")
    assert shipped.with_stack("vagrant").digest == load_text(ORIGINAL).digest != shipped.digest


def test_quotes_older_names_and_the_order_of_keys_make_no_difference(load_text: Load) -> None:
    plain = re.sub(r'"([a-z0-9-]+)"', r"\1", ORIGINAL).replace("servers:", "nodes:")
    head, nodes = plain.split("\n\n")
    assert load_text(plain) == load_text(f"{nodes}{head}") == load_text(ORIGINAL)


@pytest.mark.parametrize(("stack", "first"), [("nspawn", 2), ("vagrant", 2), ("aws", 4)])
def test_nodes_have_no_address_that_the_stack_reserves(load_text: Load, stack: str, first: int) -> None:
    def text(last: int) -> str:
        return document(entry(1, ip=f"192.168.101.{last}")).replace("stack: nspawn", f"stack: {stack}")

    assert load_text(text(first)).servers[0].ip.packed[-1] == first
    with pytest.raises(SpecError, match=f"192.168.101.{first} is free"):
        load_text(text(first - 1))


def test_a_box_is_the_default_of_servers_without_one(load_text: Load) -> None:
    older = load_text(document(entry(1, box="own/box"), entry(2), entry(3), box="some/box"))
    spec = load_text(document(entry(1, vagrant={"box": "own/box"}), entry(2), entry(3), vagrant={"box": "some/box"}))
    assert spec == older
    assert [server.vagrant.box for server in spec.servers] == ["own/box", None, None]
    assert spec.vagrant.box == "some/box"
    assert load_text(document(entry(1))).servers[0].vagrant.box is None


@pytest.mark.parametrize(("size", "voters"), [(1, 1), (2, 1), (3, 3), (4, 3), (6, 3), (7, 5), (8, 5), (20, 5)])
def test_without_roles_the_first_servers_vote_and_manage(load_text: Load, size: int, voters: int) -> None:
    spec = load_text(document(*(entry(number) for number in range(1, size + 1))))
    assert spec.consul_servers == spec.managers == spec.servers[:voters]
    assert {server.swarm for server in spec.managers} == {SwarmRole.BOTH}


@pytest.mark.parametrize(
    ("given_roles", "expected"),
    [
        ([{}, {"consul": "server"}, {}], "A/agent S/both A/agent"),
        ([{"swarm": "manager"}, {}, {}], "S/manager S/agent S/agent"),
        ([{"consul": "server"}, {"swarm": "manager"}, {"swarm": "both"}], "S/agent A/manager A/both"),
        ([{"consul": "agent"}, {"consul": "server"}, {"consul": "agent"}], "A/agent S/both A/agent"),
    ],
)
def test_where_some_servers_give_a_role_the_others_are_agents(
    load_text: Load, given_roles: list[dict[str, str]], expected: str
) -> None:
    entries = [entry(number, **keys) for number, keys in enumerate(given_roles, start=1)]
    assert roles(load_text(document(*entries))) == expected


@pytest.mark.parametrize(
    ("old", "new", "message", "hint"),
    [
        ("swarm-02", "swarm-01", "10: duplicate server name swarm-01", "rename one"),
        ("swarm-02", "localhost", "10: server 2 is named localhost, as every machine names itself", "localhost-1"),
        ("swarm-02", "ip6-loopback", "10: server 2 is named ip6-loopback", "rename it"),
        (
            "101.102",
            "101.101",
            "13: swarm-02 has the same address as swarm-01, 192.168.101.101",
            "192.168.101.2 is free",
        ),
        ("101.102", "102.7", "13: swarm-02 has an address outside 192.168.101.0/24", "192.168.101.2 is"),
        ("101.102", "101.0", "13: swarm-02 has the network's own address", "192.168.101.2 is free"),
        ("101.102", "101.255", "13: swarm-02 has the network's broadcast address", "192.168.101.2 is free"),
        ("101.102", "101.1\n", "13: swarm-02 has the host's own address", "192.168.101.2 is free"),
        ("192.168.101.102", "192.168", "13: ip of swarm-02 must be an IPv4 address, got 192.168", "four numbers"),
        ("192.168.101.102", "5", "13: ip of swarm-02 must be an IPv4 address, got the number 5", "four numbers"),
        ("192.168.101.102", "", "13: ip of swarm-02 must be an IPv4 address, got nothing", "four numbers"),
        ("192.168.101.102", "::1", "13: ip of swarm-02 must be an IPv4 address, got '::1'", "four numbers"),
        ('"swarm-02"', "Swarm_02", "10: name of server 2 must be a host name, got 'Swarm_02'", "swarm-02"),
        ('"swarm-02"', "1", "10: name of server 2 must be a host name, got the number 1", "at least one letter"),
        ('"swarm-02"', "'1'", "10: name of server 2 must be a host name, got '1'", "at least one letter"),
        ('"swarm-02"', "n" * 64, "10: name of server 2 must be a host name, got 'nnn", "63 characters"),
        ('"swarm-02"', "a.b", "10: name of server 2 must be a host name, got 'a.b'", "a-b"),
        ('"swarm-02"', "[a]", "10: name of server 2 must be a host name, got a list", "63 characters"),
        ('"swarm-02"', '"n\\n"', "10: name of server 2 must be a host name, got 'n\\n'", "such as n"),
        ("dc: dev", "dc: true", "3: dc must be a host name, got `true`", 'quotes if it is meant as text: "true"'),
        ("dc: dev", "dc: -a", "3: dc must be a host name, got '-a'", "such as a"),
        ("dc: dev", "dc: node", "3: dc must not be a word that consul's DNS uses in its names, got 'node'", "node-1"),
        ("dc: dev", 'dc: "\\ud800"', "3: dc must be a host name, got text with half a character, \\ud800", "a-z"),
        ("dc: dev", 'dc: dev\n"\\udc00": 1', "4: a key must be text, got text with half a character", "another key"),
        ("stack: vagrant", "stack: {}", "2: stack must be one of", "choose from"),
        ("stack: vagrant", "stack: []", "2: stack must be one of", "choose from"),
        ("dc: dev", "", "1: dc is missing", 'add `dc: "dev"`'),
        ("dc: dev", "dc: dev\ndc: two", "4: duplicate key `dc`", "keep one"),
        ("dc: dev", "dc: dev\nnodes: []", "6: duplicate key `servers`", "older name of `servers`"),
        ("dc: dev", "dc: dev\nadminnetwork: x", "4: adminnetwork is unknown", "`admin_network`?"),
        ("dc: dev", "dc: dev\nzzz: x", "4: zzz is unknown", "choose from admin_network, stack"),
        ("dc: dev", "dc: dev\n1: x", "4: a key must be text, got the number 1", "quotes"),
        ("dc: dev", "dc: dev\n? [a]\n: x", "4: a key must be text, got a list or a mapping", "quotes"),
        (
            "dc: dev",
            "dc: dev\nvagrant: {box: 3}",
            "4: vagrant box must be the name of a vagrant box, got the number 3",
            "",
        ),
        ("dc: dev", "dc: dev\nvagrant: 3", "4: vagrant must be a mapping, got the number 3", "{box: "),
        ("dc: dev", "dc: dev\nvagrant: {bix: a}", "4: vagrant bix is unknown", "`box`"),
        ("dc: dev", "dc: dev\nbox: 3", "4: box must be the name of a vagrant box, got the number 3", 'as text: "3"'),
        ("dc: dev", 'dc: dev\ninternet: "true"', "4: internet must be true or false, got 'true'", "without quotes"),
        ("dc: dev", "dc: dev\ninternet: yes", "4: internet must be true or false, got 'yes'", "without quotes"),
        ("dc: dev", "dc: dev\ninternet: 1", "4: internet must be true or false, got the number 1", "without quotes"),
        ("stack: vagrant", "stack: vagrnt", "2: stack must be one of nspawn, vagrant, aws, got 'vagrnt'", "`vagrant`?"),
        ("stack: vagrant", "stack:", "2: stack must be one of nspawn, vagrant, aws, got nothing", "choose from nspawn"),
        ("101.0/24", "101.9/24", "1: admin_network must be the address of a network, got", "use 192.168.101.0"),
        ("101.0/24", "101.0", "1: admin_network is too small for a cluster: 192.168.101.0/32", "/24 is usual"),
        ("101.0/24", "101.0/30", "1: admin_network is too small for a cluster: 192.168.101.0/30", "/24 is usual"),
        ("192.168.101.0/24", "8.8.8.0/24", "1: admin_network must be a private network, got 8.8.8.0/24", "10.0.0.0/8"),
        ("192.168.101.0/24", "fd00::/64", "1: admin_network must be an IPv4 network, got 'fd00::/64'", "prefix"),
        ('"3072"', '"3 GB"', "7: memory of swarm-01 must be an integer of at least 256 (MiB), got '3 GB'", "digits"),
        ('"3072"', "255", "7: memory of swarm-01 must be an integer of at least 256 (MiB), got the number", "such as"),
        ('"3072"', "-3072", "7: memory of swarm-01 must be an integer of at least 256 (MiB), got -3072", "such as"),
        ('"3072"', "true", "7: memory of swarm-01 must be an integer of at least 256 (MiB), got `true`", "such as"),
        ('"2"', "0", "8: cpus of swarm-01 must be an integer of at least 1, got the number 0", "such as 2"),
        ('"2"', "1.5", "8: cpus of swarm-01 must be an integer of at least 1, got 1.5", "such as 2"),
        ('"2"', "0x2", "8: cpus of swarm-01 must be an integer of at least 1, got 0x2", "such as 2"),
        ('"2"', "2\n    cpu: 3", "9: cpu of swarm-01 is unknown", "did you mean `cpus`?"),
        ('"2"', "2\n    labels: {row: 1}", "9: label row of swarm-01 must be a valid label, got", 'as text: "1"'),
        ('"2"', "2\n    labels: {1: row}", "9: a key must be text, got the number 1", "quotes"),
        ('"2"', "2\n    labels: {a b: row}", "9: label a b of swarm-01 must be a valid label, got 'a b'", "no blanks"),
        ('"2"', "2\n    labels: [row]", "9: labels of swarm-01 must be a mapping of text to text, got", "{disk: ssd"),
        ('"2"', "2\n    consul: sever", "9: consul of swarm-01 must be one of server, agent, got 'sever'", "`server`?"),
        (
            '"2"',
            "2\n    swarm: boss",
            "9: swarm of swarm-01 must be one of manager, agent, both, got 'boss'",
            "manager, agent",
        ),
        ('"2"', "2\n    swarm: agent", "5: no node is a swarm manager", "`swarm: both`"),
        ('"2"', "2\n    consul: agent", "5: no node is a consul server", "odd number of nodes"),
        ("dc: dev", "dc: dev: x", "3: invalid YAML: mapping values are not allowed here", "indentation"),
        ("dc: dev", "dc: *dev", "3: invalid YAML: found undefined alias 'dev'", "define it above"),
        ("dc: dev", "dc: d\x00v", "3: character not allowed in YAML", "remove it"),
        ("dc: dev", f"dc: {'[' * 5000}", "1: nested too deeply", "two levels"),
    ],
)
def test_an_invalid_value_is_reported_with_line_and_hint(
    load_text: Load, folder: Path, old: str, new: str, message: str, hint: str
) -> None:
    with pytest.raises(SpecError) as refusal:
        load_text(ORIGINAL.replace(old, new))
    first = str(refusal.value).splitlines()
    assert first[0].startswith(f"{folder}/servers.yml:{message}")
    assert first[1].startswith("  hint: ")
    assert hint in first[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1: the file is empty"),
        ("# nothing\n", "1: the file is empty"),
        ("- a\n", "1: the file must consist of `key: value` lines"),
        (document(), "3: there are no servers"),
        (document(entry(1), "n2"), "5: server 2 must be a mapping, got 'n2'"),
        (ORIGINAL.split("  - ")[0], "5: servers must be a list of mappings, got nothing"),
        (document({"memory": 512, "cpus": 1, "ip": "192.168.101.2"}), "4: name of server 1 is missing"),
        (b"dc: dev\nstack: \xff", "2: not valid UTF-8"),
        ("&a {servers: *a}", "1: admin_network is missing"),
    ],
)
def test_an_invalid_file_is_refused(load_text: Load, folder: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(SpecError) as refusal:
        load_text(text)
    line, sentence = message.split(": ", 1)
    first = str(refusal.value).splitlines()[0]
    assert re.fullmatch(rf"{re.escape(str(folder))}/servers\.yml:{line}: {re.escape(sentence)}.*", first)
    assert refusal.value.hint


def test_the_hint_for_a_missing_file_is_the_option_that_names_another(folder: Path) -> None:
    with pytest.raises(SpecError, match=r"nowhere\.yml: no such file or directory\n  hint: .*--servers"):
        load(folder / "nowhere.yml")


def test_an_even_number_of_voters_is_refused_at_the_last_of_them(load_text: Load) -> None:
    voters = ORIGINAL.replace('"2"', '"2"\n    consul  : server', 2)
    with pytest.raises(SpecError, match=r"yml:14: swarm-02 makes the number of consul servers even \(2\)\n"):
        load_text(voters)


def test_all_mistakes_are_reported_together_in_the_order_of_the_file(load_text: Load) -> None:
    wrong = ORIGINAL.replace("dc: dev", "dc: dev\nbox: []\ndc: x").replace('"2"', "two").replace("101.103", "a")
    with pytest.raises(SpecError) as refusal:
        load_text(wrong)
    flaws = re.findall(r"yml:(\d+): (\S+)", str(refusal.value))
    assert flaws == [("4", "box"), ("5", "duplicate"), ("10", "cpus"), ("14", "cpus"), ("18", "cpus"), ("19", "ip")]
    assert str(refusal.value).count("hint: ") == len(flaws)


@given(specs())
def test_any_valid_spec_has_unique_names_and_addresses_and_an_odd_number_of_voters(spec: Spec) -> None:
    assert len({server.name for server in spec.servers}) == len(spec.servers)
    assert len({server.ip for server in spec.servers}) == len(spec.servers)
    assert all(server.ip in spec.admin_network and server.ip != spec.host_address for server in spec.servers)
    assert len(spec.consul_servers) % 2 == 1
    assert spec.managers


@given(documents())
def test_whatever_a_valid_file_leaves_out_or_quotes_it_is_read(load_text: Load, content: dict[str, Any]) -> None:
    spec = load_text(json.dumps(content, ensure_ascii=False))
    given_servers = content.get("servers") or content["nodes"]
    assert [server.name for server in spec.servers] == [entry["name"] for entry in given_servers]
    assert [server.memory for server in spec.servers] == [int(entry["memory"]) for entry in given_servers]
    assert len(spec.consul_servers) % 2 == 1


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_no_file_whatever_breaks_the_reader(load_text: Load, text: str | bytes) -> None:
    with pytest.raises(SpecError, match=r"servers\.yml:\d+: "):
        load_text(text)


@given(specs(), st.integers(1, 40))
def test_a_resized_cluster_is_valid_and_like_its_first_server(spec: Spec, size: int) -> None:
    room = len(spec.rules.places(spec.admin_network))
    if size > room:
        with pytest.raises(SpecError, match="room for"):
            resized(spec, size)
        return
    try:
        bigger = resized(spec, size)
    except SpecError as refusal:
        assert "too long" in str(refusal)
        return
    assert len(bigger.servers) == size
    assert bigger.servers[0].name == spec.servers[0].name
    assert {(s.memory, s.cpus, s.labels) for s in bigger.servers} == {
        (spec.servers[0].memory, spec.servers[0].cpus, spec.servers[0].labels)
    }


@given(specs(), st.integers(0, 7), st.integers(0, 7))
def test_workers_share_no_name_and_no_address(spec: Spec, one: int, other: int) -> None:
    try:
        clusters = [spec, for_worker(spec, one), for_worker(spec, other)]
    except SpecError:
        return
    distinct = 2 if one == other else 3
    assert len({cluster.name for cluster in clusters}) == distinct
    networks = list({cluster.admin_network for cluster in clusters})
    assert len(networks) == distinct
    assert not any(a.overlaps(b) for a in networks for b in networks if a is not b)


@given(specs())
def test_a_written_spec_is_read_back_the_same_and_a_change_changes_its_digest(load_text: Load, spec: Spec) -> None:
    again = load_text(json.dumps(spec.model_dump(mode="json"), ensure_ascii=False))
    assert again == spec
    assert again.digest == spec.digest != spec._changed(internet=not spec.internet).digest


def test_specs_can_not_be_changed() -> None:
    server = Server(name="a", memory=512, cpus=1, ip="10.0.0.2", consul=ConsulRole.SERVER, swarm=SwarmRole.BOTH)  # type: ignore[arg-type]
    with pytest.raises(ValidationError):
        server.name = "b"
    assert pickle.loads(pickle.dumps(server)) == server


@pytest.mark.parametrize("word", ["addr", "connect", "ingress", "node", "query", "service", "virtual"])
def test_a_word_that_ends_the_names_of_consuls_dns_is_no_datacenter(load_text: Load, word: str) -> None:
    with pytest.raises(SpecError, match="dc must not be a word"):
        load_text(ORIGINAL.replace("dc: dev", f"dc: {word}"))
    assert word in json_schema()["properties"]["dc"]["not"]["enum"]
    assert load_text(ORIGINAL.replace("dc: dev", f"dc: {word}-1")).dc == f"{word}-1"


def test_the_json_schema_takes_the_shipped_file_and_names_every_key() -> None:
    schema = json_schema()
    shipped = YAML(typ="safe", pure=True).load((Path(__file__).parent.parent / "servers.yml").read_text())  # pyright: ignore[reportUnknownMemberType]
    assert set(shipped) <= set(schema["properties"])
    assert set(shipped["servers"][0]) <= set(schema["$defs"]["Server"]["properties"])
    assert all(key.get("description") for key in schema["properties"].values())
