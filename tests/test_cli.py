"""The command line: what it prints, its exit statuses, and a cluster from `up` to `down`."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from harness import HEEDING
from ruamel.yaml import YAML

from swarmer.cli import cli
from swarmer.ledger import Ledger, Ownership
from swarmer.spec import Spec
from swarmer.spec import file as spec_file
from swarmer.spec.file import json_schema
from swarmer.state import ClusterHome

SERVERS = """
admin_network: 192.168.117.0/24
stack: nspawn
dc: cli-test
servers:
  - {name: one, memory: 1024, cpus: 2, ip: 192.168.117.101}
  - {name: two, memory: 1024, cpus: 2, ip: 192.168.117.102}
"""
CLUSTER = "nspawn:cli-test"

#: The variables by which a shell asks for completions.
COMPLETION = {"_SWARMER_COMPLETE": "bash_complete"}

Swarmer = Callable[..., Result]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a `servers.yml` and a `SWARMER_HOME` of its own."""
    monkeypatch.setenv("SWARMER_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "servers.yml").write_text(SERVERS)
    return tmp_path


@pytest.fixture
def swarmer(folder: Path) -> Swarmer:  # noqa: ARG001
    """Runs a command in this process."""
    return lambda *words: CliRunner().invoke(cli, words)


@pytest.fixture
def spec(folder: Path) -> Spec:
    return spec_file.load(folder / "servers.yml")


def made(spec: Spec, dc: str, *, kept: bool = True, layers: tuple[str, ...] = ()) -> Ledger:
    """The ledger of a cluster that owns nothing."""
    spec = spec.model_copy(update={"dc": dc})
    ledger = Ledger(ClusterHome(spec.stack, dc), spec=spec, image="0123456789ab", layers=layers, kept=kept)
    ledger.save()
    return ledger


def leaves(group: click.Group, *path: str) -> Iterator[tuple[str, ...]]:
    """The words of every command that is not a group."""
    context = click.Context(group)
    for name in group.list_commands(context):
        _, command, _ = group.resolve_command(context, [name])
        if isinstance(command, click.Group):
            yield from leaves(command, *path, name)
        else:
            yield (*path, name)


def test_the_help_of_every_command_has_an_example(swarmer: Swarmer) -> None:
    for words in leaves(cli):
        shown = swarmer(*words, "--help")
        assert shown.exit_code == 0
        assert f"\n    swarmer {' '.join(words)}" in shown.output


def test_the_list_of_commands_shows_how_the_help_of_each_begins() -> None:
    for name, placeholder in cli.commands.items():
        command = cli.load(name)
        assert command.name == name
        assert " ".join((command.help or "").split()).startswith(placeholder.get_short_help_str(200))


@pytest.mark.parametrize(
    ("words", "variables", "shown"),
    [
        (["--help"], {}, "Show the state of a cluster"),
        (["--version"], {}, f"swarmer {version('swarmer')}"),
        ([], COMPLETION | {"COMP_WORDS": "swarmer sta", "COMP_CWORD": "1"}, "plain,status"),
    ],
)
def test_help_and_completion_import_no_slow_module(words: list[str], variables: dict[str, str], shown: str) -> None:
    show_imports = """
        import atexit, sys
        atexit.register(lambda: print(*sys.modules, file=sys.stderr))
        from swarmer.cli import main
        main()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(show_imports), *words],
        env=os.environ | variables,
        capture_output=True,
        text=True,
    )
    assert shown in done.stdout
    imported = {name.partition(".")[0] for name in done.stderr.split()}
    assert "click" in imported
    assert imported.isdisjoint(
        ["consul", "cryptography", "dns", "docker", "pydantic", "requests", "rich", "ruamel", "urllib3", "vagrant"]
    )
    ours = {"swarmer.cli", "swarmer.cli.lazy_group", "swarmer.alarm", "swarmer.errors", "swarmer.interrupts"}
    ours |= {"swarmer.signals"}
    ours |= {"swarmer.cli.completion"} if variables else set()
    assert {name for name in done.stderr.split() if name.startswith("swarmer.")} == ours


def test_status_imports_only_what_it_needs() -> None:
    """It reads no YAML, asks one stack, and a table or a progress may not be shown at all."""
    program = "import sys, swarmer.cli.clusters; print(*sys.modules)"
    imported = set(subprocess.check_output([sys.executable, "-c", program], text=True).split())
    assert "swarmer.cluster_status" in imported
    assert imported.isdisjoint(["configparser", "rich", "ruamel.yaml", "vagrant"])


def test_the_options_of_a_command_are_completed() -> None:
    variables = COMPLETION | {"COMP_WORDS": "swarmer status --", "COMP_CWORD": "2"}
    assert "plain,--json" in CliRunner().invoke(cli, env=variables, prog_name="swarmer").stdout


def completed(line: str) -> str:
    """How bash continues a line, as if a person had pressed the tab key at its end; empty if it doesn't."""
    script = """
        eval "$(_SWARMER_COMPLETE=bash_source swarmer)"
        line=$1
        # As readline divides a line, by spaces and colons.
        read -ra COMP_WORDS <<<"${line//:/ : }"
        [[ $line != *" " ]] || COMP_WORDS+=("")
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        _swarmer_completion swarmer
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script, "bash", line], env=os.environ | {"PATH": path}, capture_output=True, text=True
    )
    assert done.stderr == ""
    return " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("swarmer status ", "nspawn:dev nspawn:other"),
        ("swarmer status nspawn:o", "other"),
        ("swarmer status nspawn:", "dev other"),
        ("swarmer down --forget nspawn:d", "dev"),
        ("swarmer ssh t", "two"),
        ("swarmer ssh nspawn:dev o", "one"),
        ("swarmer ssh nspawn:dev one ", ""),
        ("swarmer exec two ", ""),
        ("swarmer logs --unit consul nspawn:dev ", "one two"),
        ("swarmer docker --node ", "one two"),
        ("swarmer docker nspawn:", "dev other"),
        ("swarmer docker nspawn:dev ", ""),
        ("swarmer consul ", "nspawn:dev nspawn:other"),
        ("swarmer dns down nspawn:d", "dev"),
    ],
)
def test_the_names_of_clusters_and_nodes_are_completed(spec: Spec, line: str, names: str) -> None:
    made(spec, "dev")
    made(spec, "other")
    assert completed(line) == names


def test_a_ledger_that_cannot_be_read_is_no_obstacle_to_typing(spec: Spec) -> None:
    made(spec, "dev").home.ledger.write_text("{}")
    assert completed("swarmer ssh ") == ""


def test_a_mistyped_command_is_answered_with_the_closest_one(swarmer: Swarmer) -> None:
    assert "Did you mean 'status'?" in swarmer("statis").stderr


def test_render_shows_no_key_of_a_bucket(swarmer: Swarmer, folder: Path) -> None:
    keys = folder / "keys"
    keys.touch(0o600)
    keys.write_text("[default]\naws_access_key_id = WHOSE\naws_secret_access_key = se/c+ret==\n")
    registry = f"registry: {{storage: s3, bucket: images, region: eu-west-1, credentials: {keys}}}\n"
    (folder / "servers.yml").write_text(SERVERS + registry)
    shown = swarmer("render", "one")
    user_data, _, _ = YAML(typ="safe").load_all(shown.stdout)
    files = {file["path"]: file["content"] for file in user_data["write_files"]}
    variables = dict(line.split("=", 1) for line in files["/etc/swarmer/registry/environment"].splitlines())
    assert variables.pop("CONFIGURATION") == "/etc/swarmer/registry/config.yml"
    assert set(variables) == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "REGISTRY_HTTP_SECRET"}
    assert set(variables.values()) == {"***"}
    assert "WHOSE" not in shown.stdout
    assert "se/c+ret" not in shown.stdout


def test_schema_is_the_schema(swarmer: Swarmer) -> None:
    assert json.loads(swarmer("schema").stdout) == json_schema()


def test_render_is_yaml_without_secrets_and_leaves_nothing(
    swarmer: Swarmer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = folder / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    shown = swarmer("render", "one")
    user_data, meta_data, network = YAML(typ="safe").load_all(shown.stdout)
    files = {file["path"]: file["content"] for file in user_data["write_files"]}
    config = json.loads(files["/etc/swarmer/consul/consul.json"])
    rules = json.loads(files["/etc/swarmer/acl.json"])
    secrets = [
        config["encrypt"],
        *config["acl"]["tokens"].values(),
        rules["management"],
        *(token["secret"] for token in rules["tokens"]),
    ]
    secrets += [user_data["ssh_keys"]["ed25519_private"].strip(), files["/etc/swarmer/consul/node-key.pem"].strip()]
    assert set(secrets) == {"***"}
    assert "PRIVATE KEY" not in shown.stdout
    assert meta_data["local-hostname"] == "one"
    assert network["ethernets"]["host0"]["addresses"] == ["192.168.117.101/24"]
    assert not list(temporary.iterdir())
    assert not (folder / "home").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["up", "--size", "many"],
        ["down", "dev"],
        ["down", "nspawn:../../etc"],
        ["status", "moon:dev"],
        ["ssh"],
        ["logs", "--nonsense", "one"],
        ["docker"],
        ["consul"],
        ["dns", "up", "dev.vagrant", "nowhere"],
    ],
)
def test_wrong_usage_exits_with_2(swarmer: Swarmer, words: list[str]) -> None:
    assert swarmer(*words).exit_code == 2


@pytest.mark.parametrize("words", [["ssh", "one", "two"], ["exec", "one"], ["exec", "--all"], ["logs", "one", "two"]])
def test_wrong_number_of_words_exits_with_2(swarmer: Swarmer, spec: Spec, words: list[str]) -> None:
    made(spec, "dev")
    assert swarmer(*words).exit_code == 2


@pytest.mark.parametrize(
    "words",
    [
        *(["status"], ["ssh", "one"], ["exec", "one", "true"], ["logs", "one"]),
        *(["docker", "ps"], ["env"], ["consul", "members"], ["dns", "up"]),
    ],
)
def test_without_a_cluster_the_hint_is_up(swarmer: Swarmer, words: list[str]) -> None:
    result = swarmer(*words)
    assert result.exit_code == 1
    assert result.stderr == ("error: no cluster is running\n  hint: `swarmer up` boots the cluster of servers.yml\n")


def test_among_several_clusters_one_must_be_named(swarmer: Swarmer, spec: Spec) -> None:
    made(spec, "left")
    made(spec, "right")
    for words in (["status"], ["down"]):
        result = swarmer(*words)
        assert result.exit_code == 1
        assert result.stderr == ("error: there are 2 clusters\n  hint: name one of them: nspawn:left, nspawn:right\n")
    assert swarmer("down", "nspawn:left").stdout == "removed nspawn:left: one, two, 192.168.117.0/24\n"


def test_an_unknown_cluster_or_node_is_reported(swarmer: Swarmer, spec: Spec) -> None:
    assert swarmer("status", "nspawn:nowhere").stderr.startswith("error: there is no cluster nspawn:nowhere\n")
    made(spec, "dev")
    assert "has no node three\n  hint: it has: one, two" in swarmer("logs", "three").stderr
    off = swarmer("exec", "nspawn:dev", "one", "true")
    assert (off.exit_code, off.stderr.splitlines()[0]) == (1, "error: one is switched off")


def test_a_mistake_in_the_file_is_reported_with_its_line(swarmer: Swarmer, folder: Path) -> None:
    (folder / "servers.yml").write_text(SERVERS.replace("117.102", "117.101"))
    result = swarmer("up")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: servers.yml:7: two has the same address as one")


def test_ls_shows_the_state_and_the_owner_of_each_cluster(swarmer: Swarmer, spec: Spec) -> None:
    made(spec, "broken").mark_broken("test_something broke the cluster")
    made(spec, "dead", kept=False)
    made(spec, "kept")
    ownership = Ownership(made(spec, "owned", kept=False).home)
    assert ownership.acquire()
    made(spec, "unreadable").home.ledger.write_text("{}")
    rows = {row["cluster"]: row for row in json.loads(swarmer("ls", "--json").stdout)}
    ownership.release()
    assert {name: row["state"] for name, row in rows.items()} == {
        "nspawn:broken": "broken",
        "nspawn:dead": "dead owner",
        "nspawn:kept": "kept",
        "nspawn:owned": "running",
        "nspawn:unreadable": "unreadable",
    }
    assert rows["nspawn:owned"]["owner_pid"] == os.getpid()
    assert rows["nspawn:kept"]["owner_pid"] is None
    assert set(rows["nspawn:kept"]) == {
        *("cluster", "state", "nodes", "running", "admin_network", "image", "owner_pid", "problem")
    }


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user for a moment")
@pytest.mark.parametrize("words", [["ls"], ["status", CLUSTER], ["gc"]])
def test_files_of_another_user_are_reported_with_a_hint(
    swarmer: Swarmer, spec: Spec, folder: Path, words: list[str]
) -> None:
    made(spec, "cli-test")
    folder.chmod(0o755)
    os.seteuid(65534)
    try:
        refused = swarmer(*words)
    finally:
        os.seteuid(0)
    assert refused.exit_code == 1
    assert f"error: {folder}/home" in refused.stderr
    assert "permission denied" in refused.stderr
    assert "bin/as-root .venv/bin/swarmer" in refused.stderr


def test_gc_and_down_remove_once(swarmer: Swarmer, spec: Spec) -> None:
    made(spec, "dead", kept=False)
    made(spec, "kept")
    assert swarmer("gc").stdout == "removed the leftovers of nspawn:dead\n"
    assert swarmer("gc").stdout == "nothing to remove\n"
    assert swarmer("down").exit_code == 0
    again = swarmer("down", "nspawn:kept")
    assert (again.exit_code, again.stdout) == (0, "there is no cluster nspawn:kept; nothing to remove\n")
    assert json.loads(swarmer("ls", "--json").stdout) == []


def test_gc_of_a_slow_cluster_does_not_scale_other_deadlines(swarmer: Swarmer, spec: Spec) -> None:
    ledger = made(spec.model_copy(update={"stack": "vagrant"}), "slow", kept=False)
    ledger.record("path", str(ledger.home.folder / "vagrant"))
    (ledger.home.folder / "vagrant").mkdir()
    (ledger.home.folder / "vagrant/plan.json").write_text('{"slowness": 5.0, "provider": "libvirt"}')
    assert swarmer("gc").stdout == "removed the leftovers of vagrant:slow\n"


def test_a_plan_that_is_damaged_hides_no_other_cluster(swarmer: Swarmer, spec: Spec) -> None:
    damaged = made(spec.model_copy(update={"stack": "vagrant"}), "damaged", kept=False)
    damaged.record("path", str(damaged.home.folder / "vagrant"))
    (damaged.home.folder / "vagrant").mkdir()
    (damaged.home.folder / "vagrant/plan.json").write_text('{"slowness": 5.')
    made(spec, "kept")
    rows = {row["cluster"]: row for row in json.loads(swarmer("ls", "--json").stdout)}
    assert rows["nspawn:kept"]["state"] == "kept"
    assert "plan.json can't be read" in rows["vagrant:damaged"]["problem"]
    assert swarmer("gc").stdout == "removed the leftovers of vagrant:damaged\n"


def test_gc_continues_after_a_cluster_that_it_cannot_remove(swarmer: Swarmer, spec: Spec) -> None:
    made(spec, "a-unreadable").home.ledger.write_text("{}")
    made(spec, "b-dead", kept=False)
    result = swarmer("gc")
    assert result.exit_code == 1
    assert result.stdout == "removed the leftovers of nspawn:b-dead\n"
    assert result.stderr.startswith("error: the leftovers of nspawn:a-unreadable can't be removed: the ledger ")
    assert "delete the resources that it lists, then the file" in result.stderr


def test_prune_keeps_the_layers_of_clusters(
    swarmer: Swarmer, folder: Path, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWARMER_CACHE", str(folder / "cache"))
    monkeypatch.setenv("VAGRANT_HOME", str(folder / "vagrant"))
    monkeypatch.setenv("HOME", str(folder))
    for name in ("base-used", "node-used", "node-old", "node-torn.partial"):
        (folder / "cache/images" / name / "root").mkdir(parents=True)
    made(spec, "dev", layers=("base-used", "node-used"))
    result = swarmer("image", "prune").stdout
    assert [line.split(",")[0] for line in result.splitlines()] == ["removed node-old", "removed node-torn.partial"]
    assert {path.name for path in (folder / "cache/images").iterdir()} == {"base-used", "node-used", "lock"}
    assert swarmer("image", "prune").stdout == "nothing to remove\n"
    assert swarmer("image", "show").exit_code == 1


def run(*words: str, status: int = 0) -> str:
    """Run a command in a process of its own; returns its standard output."""
    done = subprocess.run([sys.executable, "-m", "swarmer", *words], capture_output=True, text=True, timeout=180)
    assert done.returncode == status, done.stderr
    return done.stdout


def as_json(*words: str, status: int = 0) -> Any:
    return json.loads(run(*words, "--json", status=status))


@pytest.fixture
def removed_afterwards(folder: Path) -> Iterator[None]:  # noqa: ARG001
    yield
    run("down", CLUSTER)
    assert "192.168.117." not in subprocess.check_output(["ip", "-4", "route"], text=True)


@pytest.mark.usefixtures("removed_afterwards")
@pytest.mark.skipif(os.geteuid() != 0, reason="nspawn nodes need root")
def test_a_cluster_from_up_to_down() -> None:
    assert f"swarmer ssh {CLUSTER} one" in run("up")
    assert "is already healthy" in run("up")
    (listed,) = as_json("ls")
    assert (listed["cluster"], listed["state"], listed["running"]) == (CLUSTER, "kept", 2)

    seen = as_json("status")
    assert (seen["healthy"], seen["problem"]) == (True, "")
    assert timedelta() < datetime.fromisoformat(seen["certificates_end"]) - datetime.now(UTC) <= timedelta(days=365)
    one, two = seen["nodes"]
    assert (one["cloud_init"], one["member"], one["leader"], one["voter"]) == ("done", "alive", True, True)
    assert (two["consul"], two["member"], two["leader"], two["voter"]) == ("agent", "alive", False, False)

    assert run("exec", "one", "hostname") == "one\n"
    assert run("exec", CLUSTER, "two", "--", "sh", "-c", "echo 'a  b'; exit 7", status=7) == "a  b\n"
    assert sorted(run("exec", "--all", "hostname | tr a-z A-Z").splitlines()) == ["one | ONE", "two | TWO"]
    assert run("exec", CLUSTER, "--all", "test $(hostname) = one", status=1) == ""
    assert "Started consul.service" in run("logs", "one", "--unit", "consul", "--boot")

    run("exec", "two", "systemctl --no-block poweroff")
    deadline = time.monotonic() + 30
    while as_json("ls")[0]["running"] == 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert as_json("status", status=1)["problem"] == "two is switched off"
    assert "systemd" in run("logs", "two")
    assert run("down").startswith(f"removed {CLUSTER}: one, two")


@pytest.mark.usefixtures("removed_afterwards")
@pytest.mark.skipif(os.geteuid() != 0, reason="nspawn nodes need root")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_up_interrupted_leaves_nothing(number: signal.Signals) -> None:
    command = [*HEEDING, sys.executable, "-m", "swarmer", "up"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        result = ""
        for line in process.stderr:
            result += line
            if "two launched" in line:
                break
        process.send_signal(number)  # once: a second one would end it without removing anything
        result += process.stderr.read()
        assert process.wait() == 128 + number, result
    assert as_json("ls") == [], result
    assert run("gc") == "nothing to remove\n"
