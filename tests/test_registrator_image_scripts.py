"""Whose scripts are run: those of who runs a container, and none that its image brings."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from registrator_strategies import metadata_keys, values

from swarmer.node.registrator.inventory import drop_image_scripts, has_script

configs = st.builds(
    lambda variables, labels: {"Env": [f"{name}={value}" for name, value in variables.items()], "Labels": labels},
    st.dictionaries(metadata_keys(), values),
    st.dictionaries(metadata_keys(), values),
)


def pairs(config: dict[str, Any]) -> set[tuple[str, str]]:
    return {*(tuple(variable.split("=", 1)) for variable in config["Env"]), *config["Labels"].items()}


@given(configs, configs)
def test_all_but_the_scripts_of_the_image_stays(image: dict[str, Any], own: dict[str, Any]) -> None:
    # What is given to a container takes the place of what its image has under the same name.
    names = {variable.partition("=")[0] for variable in own["Env"]}
    inherited = [variable for variable in image["Env"] if variable.partition("=")[0] not in names]
    container = {"Image": "x", "Env": inherited + own["Env"], "Labels": {**image["Labels"], **own["Labels"]}}
    left = drop_image_scripts(container, image)
    assert left["Image"] == "x"
    gone = pairs(container) - pairs(left)
    assert all(has_script({"Env": [f"{name}={value}"]}) for name, value in gone)
    assert gone <= pairs(image)
    assert not any(variable in image["Env"] and has_script({"Env": [variable]}) for variable in left["Env"])
    assert not any(
        label in image["Labels"].items() and has_script({"Labels": dict([label])}) for label in left["Labels"].items()
    )


def test_without_anything_there_is_no_script() -> None:
    assert not has_script({"Env": None, "Labels": None})
    assert drop_image_scripts({"Env": None, "Labels": None}, {"Env": None}) == {"Env": [], "Labels": {}}
