"""SERVICE_* variables and labels, and lists of tags."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from registrator_strategies import metadata, values

from swarmer.node.registrator.metadata import attributes, environment, tags

tag_texts = st.text(st.characters(exclude_categories=("C", "Z"), exclude_characters=",\\"), min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ()),
        ("a", ("a",)),
        ("a,b", ("a", "b")),
        (",a,,b,", ("a", "b")),
        (" a , b ", ("a", "b")),
        ("a,b,a", ("a", "b")),
        (r"a\,b", ("a,b",)),
        (r"a\,b,c", ("a,b", "c")),
        (r"urlprefix-/x\,proto=tcp,\,", ("urlprefix-/x,proto=tcp", ",")),
    ],
)
def test_tags(text: str, found: tuple[str, ...]) -> None:
    assert tags(text) == found


@given(st.lists(st.lists(tag_texts, min_size=1, max_size=3).map(",".join), unique=True, max_size=5))
def test_tags_with_escaped_commas_come_back_as_they_were(wanted: list[str]) -> None:
    assert tags(",".join(tag.replace(",", "\\,") for tag in wanted)) == tuple(wanted)


@given(st.lists(values, max_size=3))
def test_several_lists_of_tags_are_one(lists: list[str]) -> None:
    assert set(tags(*lists)) == {tag for text in lists for tag in tags(text)}


@given(st.dictionaries(st.text(st.characters(categories=("Lu", "Nd")), min_size=1), values))
def test_variables_are_what_docker_lists(variables: dict[str, str]) -> None:
    assert environment([f"{name}={value}" for name, value in variables.items()]) == variables


def test_a_variable_without_a_value_is_none() -> None:
    assert environment(["SERVICE_NAME"]) == {}
    assert environment(None) == {}


def test_names_are_lower_cased_and_ports_told_apart_from_names() -> None:
    found = attributes(80, {"SERVICE_80_Name": "web", "SERVICE_81_NAME": "no", "SERVICE_8": "meta", "SERVICE_8_": "x"})
    assert found.values == {"name": "web", "8": "meta", "8_": "x"}
    assert found.of_port == {"name"}


@given(metadata, metadata)
def test_of_the_same_name_the_later_source_counts(first: dict[str, str], second: dict[str, str]) -> None:
    both = attributes(80, first, second)
    later = attributes(80, second)
    for name, value in later.values.items():
        if name in later.of_port or name not in both.of_port:
            assert both.values[name] == value


@given(metadata)
def test_the_ports_own_value_counts_more_than_that_of_all(source: dict[str, str]) -> None:
    found = attributes(80, {**source, "SERVICE_80_REGION": "mine"}, {"SERVICE_REGION": "all"})
    assert found.values["region"] == "mine"
