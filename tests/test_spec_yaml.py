"""How `servers.yml` is written: anchors and merge keys, values that YAML doesn't read as text, and line numbers."""

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import documents

from swarmer.errors import SpecError
from swarmer.spec import Spec
from swarmer.spec.file import json_schema, load

HEAD: str = "admin_network: 192.168.50.0/24\nstack: nspawn\ndc: dev\n"
#: One server in block style, after which a file may go on with more keys of it. The name is in line 5.
BLOCK: str = f"{HEAD}servers:\n  - name: a1\n    memory: 512\n    cpus: 1\n    ip: 192.168.50.11\n"

#: What looks like a space, or like nothing.
LOOKALIKES = "\xa0\u2003\u202f\u200b\ufeff\u3000\x85\u2028"

Load = Callable[[str | bytes], Spec]


@pytest.fixture(scope="module")
def load_text(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """Loads a text as the file that holds it."""
    path = tmp_path_factory.mktemp("spec") / "servers.yml"

    def read(text: str | bytes) -> Spec:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load(path)

    return read


def flaws(refusal: pytest.ExceptionInfo[SpecError]) -> list[tuple[int, str, str]]:
    """Line, message and hint of each mistake."""
    found = re.findall(r"servers\.yml:(\d+): (.*)\n  hint: (.*)", str(refusal.value))
    return [(int(line), message, hint) for line, message, hint in found]


# -- anchors and merge keys --------------------------------------------------------------------------------


def test_merge_keys_add_what_a_mapping_does_not_have(load_text: Load) -> None:
    spec = load_text(
        "x-node: &node {memory: 512, cpus: 1, labels: {disk: ssd}}\n"
        "x-big: &big {memory: 2048}\n"
        f"{HEAD}servers:\n"
        "  - &first {<<: *node, name: a1, ip: 192.168.50.11}\n"
        "  - <<: [*big, *node]\n"
        "    name: a2\n"
        "    ip: 192.168.50.12\n"
        "  - {<<: *first, name: a3, ip: 192.168.50.13, labels: {<<: {disk: hdd, row: b}, disk: ssd}}\n"
    )
    assert [(server.name, server.memory, server.cpus, dict(server.labels)) for server in spec.servers] == [
        ("a1", 512, 1, {"disk": "ssd"}),
        ("a2", 2048, 1, {"disk": "ssd"}),
        ("a3", 512, 1, {"disk": "ssd", "row": "b"}),
    ]


def test_a_whole_file_may_be_merged(load_text: Load) -> None:
    merged = BLOCK.replace(HEAD, f"x-all: &all\n  {HEAD.strip().replace(chr(10), chr(10) + '  ')}\n<<: *all\n")
    assert load_text(merged) == load_text(BLOCK)


@given(documents(), st.data())
def test_any_file_means_the_same_with_what_is_common_in_an_anchor(
    load_text: Load, content: dict[str, Any], data: st.DataObject
) -> None:
    name = "servers" if "servers" in content else "nodes"
    servers: list[dict[str, Any]] = content[name]
    common = [key for key in servers[0] if all(key in server for server in servers)]
    shared = {key: servers[0][key] for key in common if data.draw(st.booleans(), label=key)}
    lines = [f"x-shared: &shared {dumped(shared)}"]
    lines += [f"{dumped(key)}: {dumped(value)}" for key, value in content.items() if key != name]
    lines.append(f"{name}:")
    for server in servers:
        own = {key: value for key, value in server.items() if key not in shared or shared[key] != value}
        lines.append(f"  - {{<<: *shared, {dumped(own)[1:]}")
    assert load_text("\n".join(lines)) == load_text(dumped(content))


def dumped(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def test_extension_fields_hold_anything_and_labels_are_none(load_text: Load) -> None:
    extended = "x-note: [1, {2: !odd 3}]\n" + BLOCK + "    x-rack: 7\n    labels: {x-rack: b}\n"
    extended += "registry: {x-bucket: 1}\nvagrant: {x-box: 1}\n"
    assert dict(load_text(extended).servers[0].labels) == {"x-rack": "b"}
    plain = BLOCK + "    labels: {x-rack: b}\n"
    assert load_text(extended).digest == load_text(plain).digest


def test_the_json_schema_takes_extension_fields_but_in_labels() -> None:
    schema = json_schema()
    server, registry = schema["$defs"]["Server"], schema["$defs"]["Registry"]
    assert all("^x-" in mapping["patternProperties"] for mapping in (schema, server, registry))
    assert "^x-" not in server["properties"]["labels"]["patternProperties"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "x-node: &node {memory: 5 GB, cpus: 1}\n" + HEAD + "servers:\n  - {<<: *node, name: a1, ip: 192.168.50.11}",
            [(1, "memory of a1 must be an integer of at least 256 (MiB), got '5 GB' (used by the alias in line 6)")],
        ),
        (
            HEAD + "servers:\n  - &a {name: a1, memory: 512, cpus: 1, ip: 192.168.50.11}\n  - {<<: *a, name: a2}",
            [(5, "a2 has the same address as a1, 192.168.50.11 (used by the alias in line 6)")],
        ),
        (
            HEAD + "servers:\n  - &a {name: a1, memory: 512, cpus: 1}\n  - *a\n",
            [(5, "ip of a1 is missing"), (6, "ip of a1 is missing")],
        ),
        ("x-node: &node {cpus: 1, cpus: 2}\n" + BLOCK, [(1, "duplicate key `cpus`")]),
        (BLOCK + "    labels:\n      a: b\n      a: c\n", [(11, "duplicate key `a`")]),
        (BLOCK + "    <<: {}\n    <<: {}\n", [(10, "duplicate key `<<`")]),
        (BLOCK + "    <<: 5\n", [(9, "`<<` must be a mapping or a list of mappings")]),
        (BLOCK + "    <<: [{}, []]\n", [(9, "`<<` must be a mapping or a list of mappings")]),
        (BLOCK + "    '<<': {}\n", [(9, "<< of a1 is unknown")]),
        ("x-a: &a\n  x: 1\n  <<: *a\n" + BLOCK, [(3, "`<<` merges a mapping into itself")]),
        ("x-a: &a {<<: &b {<<: *a}}\n" + BLOCK, [(1, "`<<` merges a mapping into itself")]),
        (BLOCK + "y-rack: 7\n", [(9, "y-rack is unknown")]),
    ],
)
def test_a_mistake_in_what_is_merged_is_named_where_it_is_written(
    load_text: Load, text: str, expected: list[tuple[int, str]]
) -> None:
    with pytest.raises(SpecError) as refusal:
        load_text(text)
    assert [(line, message) for line, message, _ in flaws(refusal)] == expected


def test_an_anchor_may_be_defined_again(load_text: Load) -> None:
    assert load_text(BLOCK.replace("512", "&a 512").replace("cpus: 1", "cpus: &a 1")) == load_text(BLOCK)


def test_merge_keys_that_double_at_each_step_are_read_at_once(load_text: Load) -> None:
    chain = "".join(f"x-{step}: &a{step} {{<<: [*a{step - 1}, *a{step - 1}]}}\n" for step in range(1, 64))
    text = "x-0: &a0 {cpus: 1}\n" + chain + BLOCK.replace("cpus: 1", "<<: *a63")
    assert load_text(text).servers[0].cpus == 1


# -- values that YAML reads as something other than text ----------------------------------------------------


@pytest.mark.parametrize("written", ["1e3", "25921e05", "0x1f", "0b1", "0o7", "true", "null"])
def test_the_hint_for_a_name_that_is_none_to_yaml_is_to_quote_it(load_text: Load, written: str) -> None:
    for text, line in ((BLOCK.replace("a1", written), 5), (BLOCK.replace("dev", written), 3)):
        with pytest.raises(SpecError) as refusal:
            load_text(text)
        [(found, message, hint)] = flaws(refusal)
        assert (found, hint) == (line, f'put it in quotes if it is meant as text: "{written}"')
        assert "must be a host name" in message
    assert load_text(BLOCK.replace("a1", f'"{written}"')).servers[0].name == written


@pytest.mark.parametrize("written", ["on", "no", "y", "1e", "2024-01-02t", "12-30a"])
def test_names_that_are_text_in_yaml_1_2_need_no_quotes(load_text: Load, written: str) -> None:
    assert load_text(BLOCK.replace("a1", written).replace("dev", written)).servers[0].name == written


def test_quotes_are_no_hint_where_they_would_not_help(load_text: Load) -> None:
    with pytest.raises(SpecError) as refusal:
        load_text(BLOCK.replace("a1", "012").replace("512", "1e3").replace("cpus: 1", "cpus: 0x2"))
    assert [line for line, _, _ in flaws(refusal)] == [5, 6, 7]
    assert not any("quotes" in hint for _, _, hint in flaws(refusal))


def test_a_directive_of_yaml_1_1_makes_booleans_of_words(load_text: Load) -> None:
    with pytest.raises(SpecError) as refusal:
        load_text("%YAML 1.1\n---\n" + BLOCK.replace("a1", "on"))
    assert [(line, hint) for line, _, hint in flaws(refusal)] == [(7, 'put it in quotes if it is meant as text: "on"')]


@given(
    st.from_regex(r"[0-9a-zA-Z+.:_~=-]{1,12}", fullmatch=True)
    | st.from_regex(r"[0-9]{1,3}[.:eExX_-][0-9a-f]{1,4}", fullmatch=True)
)
def test_a_label_is_read_as_it_is_written_or_refused_with_the_hint_to_quote_it(load_text: Load, text: str) -> None:
    text = text.strip()
    try:
        read = load_text(f"{BLOCK}    labels:\n      a: {text}\n      b: c\n").servers[0].labels["a"]
    except SpecError as refusal:
        lines = str(refusal).splitlines()
        assert re.match(r".*servers\.yml:10: ", lines[0])
        assert dumped(text) in lines[1] or "invalid YAML" in lines[0]
        read = load_text(f"{BLOCK}    labels:\n      a: {dumped(text)}\n      b: c\n").servers[0].labels["a"]
    assert read == text


@pytest.mark.parametrize(
    ("old", "new", "line", "hint"),
    [
        (".11", ".011", 8, "use 192.168.50.11"),
        ("50.0/24", "050.0/24", 1, "use 192.168.50.0/24"),
        ("a1", "@a1", 5, "put text that begins with @ in quotes"),
        ("a1", "*a1", 5, "define it above with `&`, or put the text in quotes"),
        ("    cpus", "    \tcpus", 7, "replace the tab by spaces"),
        ("memory: ", "memory:\t", 6, "replace the tab by spaces"),
        ("  - name", "---\n  - name", 5, "keep one document"),
        ("name: a1", "name: 'a1", 5, "end it"),
        ("dc: dev", "dc: [dev", 4, "whether the bracket in line 3 is closed"),
    ],
)
def test_what_yaml_takes_for_something_else_gets_a_hint_of_its_own(
    load_text: Load, old: str, new: str, line: int, hint: str
) -> None:
    with pytest.raises(SpecError, match=re.escape(hint)) as refusal:
        load_text(BLOCK.replace(old, new))
    assert f"servers.yml:{line}: " in str(refusal.value)


# -- lines -------------------------------------------------------------------------------------------------


@given(
    st.lists(st.sampled_from(["", "# a comment", "  # ünïcode \U0001f600", "#\tx"]), max_size=6),
    st.integers(0, 3),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from(["", "\ufeff"]),
    st.sampled_from(["memory: 512", "cpus: 1", "ip: 192.168.50.11"]),
)
def test_the_line_of_a_mistake_is_that_of_an_editor(
    load_text: Load, filler: list[str], after: int, newline: str, bom: str, key: str
) -> None:
    lines = BLOCK.splitlines()
    lines[after:after] = filler
    number = next(number for number, line in enumerate(lines, start=1) if key in line)
    text = bom + newline.join(lines)
    assert load_text(text) == load_text(BLOCK)
    for wrong in (key.split()[0] + " zero", key + ": x", "'" + key, f"\x01{key}"):
        with pytest.raises(SpecError) as refusal:
            load_text(text.replace(key, wrong))
        assert re.findall(r"servers\.yml:(\d+): ", str(refusal.value))[0] == str(number)


@given(st.data(), st.sampled_from(LOOKALIKES), st.sampled_from(["\n", "\r\n"]))
def test_what_only_looks_like_a_space_is_named_in_its_line(
    load_text: Load, data: st.DataObject, character: str, newline: str
) -> None:
    lines = BLOCK.splitlines()
    index = data.draw(st.integers(4, 7), label="line")
    line = lines[index]
    places = [0, len(line) - len(line.lstrip(" -")), line.index(":") + 1, line.index(":") + 2, len(line)]
    place = data.draw(st.sampled_from(places), label="place")
    space = line[place : place + 1] == " "
    lines[index] = line[:place] + character + line[place + (space and data.draw(st.booleans(), label="instead")) :]
    try:
        assert load_text(newline.join(lines)) == load_text(BLOCK)
    except SpecError:
        with pytest.raises(SpecError) as refusal:
            load_text(newline.join(lines))
    else:
        assert character in "\x85\u2028", "only what is a line break for the parser may be harmless"
        return
    [(number, message, hint)] = flaws(refusal)
    assert (number, hint) == (index + 1, "replace or remove it")
    assert f"(U+{ord(character):04X})" in message


def test_what_looks_like_a_space_is_not_blamed_in_quotes_and_comments(load_text: Load) -> None:
    text = f'# a\xa0note\n{BLOCK}    labels: {{a: "\xa0b\xa0"}}\n'
    assert load_text(text).servers[0].labels["a"] == "\xa0b\xa0"
    with pytest.raises(SpecError, match=r"yml:7: memory of a1 must be"):
        load_text(text.replace("512", "x"))


def test_a_byte_that_is_not_utf8_is_named_in_its_line(load_text: Load) -> None:
    for newline in ("\n", "\r\n", "\r"):
        with pytest.raises(SpecError, match=r"yml:5: not valid UTF-8"):
            load_text(BLOCK.replace("\n", newline).replace("a1", "ä1").encode("latin-1"))


@given(st.text(st.characters(exclude_categories=("C", "Zl", "Zp")), max_size=20), st.booleans())
def test_any_label_in_the_quotes_of_json_is_read_unchanged(load_text: Load, text: str, ascii_only: bool) -> None:
    quoted = json.dumps(text, ensure_ascii=ascii_only)
    assert load_text(f"{BLOCK}    labels: {{a: {quoted}}}\n").servers[0].labels["a"] == text


@pytest.mark.parametrize(
    "text",
    [
        "stack: nspawn\n",
        "\"stack\" : 'nspawn' # vagrant\n",
        "# stack: web\nservers:\n- name: a1\n  labels:\n    stack: web\nstack: nspawn\n",
        "servers:\n- {name: a1, labels: {stack: web}}\nstack: nspawn\n",
        "{dc: dev, stack: nspawn, servers: []}\n",
        '{\n  "dc": "dev",\n  "stack": "nspawn"\n}\n',
    ],
)
def test_make_finds_the_stack(tmp_path: Path, text: str) -> None:
    (tmp_path / "servers.yml").write_text(text)
    (tmp_path / "shown.mk").write_text("shown: ; @echo $(STACK)\n")
    makefile = str(Path(__file__).parents[1] / "Makefile")
    command = ["make", "-s", "-f", makefile, "-f", "shown.mk", "shown"]
    environment = {key: value for key, value in os.environ.items() if key not in ("STACK", "MAKEFLAGS", "MAKELEVEL")}
    made = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert made.stdout == "nspawn\n"
