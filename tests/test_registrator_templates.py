"""The placeholders in the variables of a swarm service, as its port of the routing mesh is announced."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmer.node.registrator.templates import filled_in

SERVICE: dict[str, Any] = {
    "identity": "abc123",
    "name": "shop_web",
    "labels": {"tier": "front", "a.b": "dotted", "a,b": "comma"},
}


def value(text: str, key: str = "SERVICE_NAME") -> str | None:
    return filled_in({key: text}, **SERVICE).get(key)


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("plain", "plain"),
        ("{{.Service.Name}}-api", "shop_web-api"),
        ("{{ .Service.Name }}.{{.Service.ID}}", "shop_web.abc123"),
        ("{{.Service.Labels.tier}}", "front"),
        ('{{index .Service.Labels "a.b"}}', "dotted"),
        ("{{index .Service.Labels `a.b` }}", "dotted"),
        ('{{index .Service.Labels "none"}}-x', "-x"),
        ("{single}}", "{single}}"),
    ],
)
def test_what_is_the_services_is_filled_in(text: str, filled: str) -> None:
    assert value(text) == filled


@pytest.mark.parametrize(
    "text",
    [
        "{{.Node.Hostname}}",
        "web-{{.Task.Slot}}",
        "{{.Service.Name}}-{{.Task.Slot}}",
        "{{.Task.Name}}",
        "{{if .Task.Slot}}a{{end}}",
        "{{.Service.Nameless}}",
        "{{",
    ],
)
def test_what_is_different_for_each_task_is_left_out(text: str) -> None:
    assert value(text) is None


@pytest.mark.parametrize("key", ["SERVICE_TAGS", "SERVICE_80_TAGS", "SERVICE_tags"])
def test_of_tags_only_those_of_a_task_are_left_out(key: str) -> None:
    assert value("slot{{.Task.Slot}},edge,{{.Node.Hostname}},of-{{.Service.Name}}", key) == "edge,of-shop_web"
    assert value(r"a\,b{{.Task.ID}},c\,d", key) == r"c\,d"
    assert value("{{.Task.ID}}", key) is None


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ('a,{{index .Service.Labels "a,b"}},c', "a,comma,c"),
        ('a,{{join "," .Task.Name .Node.ID}},c', "a,c"),
        ("a,{{printf `%s,%s` .Service.Name .Task.Slot}}", "a"),
        ("{{if eq .Task.Slot 1}}a,b,c{{end}}", None),
        ("{{range .Service.Labels}}a,b,c{{- end -}}", None),
    ],
)
def test_no_part_of_a_placeholder_is_a_tag(text: str, filled: str | None) -> None:
    assert value(text, "SERVICE_TAGS") == filled


@given(st.dictionaries(st.sampled_from(["SERVICE_NAME", "SERVICE_TAGS", "SERVICE_X"]), st.text(max_size=40)))
def test_text_without_placeholders_stays_as_it_is(variables: dict[str, str]) -> None:
    plain = {key: text.replace("{{", "") for key, text in variables.items()}
    assert filled_in(plain, **SERVICE) == plain


@given(st.lists(st.sampled_from(["{{", "}}", ".Service.Name", ".Task.Slot", ",", "\\", " ", "index", '"', "x"])))
def test_no_placeholder_is_ever_announced(parts: list[str]) -> None:
    for key in ("SERVICE_NAME", "SERVICE_TAGS"):
        assert "{{" not in (value("".join(parts), key) or "")
