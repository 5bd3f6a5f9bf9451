"""Scripts are run on the node for whoever runs a container, never for whoever made its image.

Docker's inspection of a container doesn't tell the image's variables and labels from its own.
"""

from collections.abc import Mapping
from typing import Any

Config = Mapping[str, Any]

_SCRIPT = "_CHECK_SCRIPT"


def has_script(config: Config) -> bool:
    """Whether a container, or an image, asks for a script, by its `Config`."""
    names = [*(variable.partition("=")[0] for variable in config.get("Env") or ()), *(config.get("Labels") or ())]
    return any(map(_is_script, names))


def without_scripts_of(config: Config, image: Config) -> dict[str, Any]:
    """A container's `Config` without the scripts that are its image's."""
    variables, labels = set(image.get("Env") or ()), (image.get("Labels") or {}).items()
    return {
        **config,
        "Env": [
            variable
            for variable in config.get("Env") or ()
            if not (variable in variables and _is_script(variable.partition("=")[0]))
        ],
        "Labels": {
            name: value
            for name, value in (config.get("Labels") or {}).items()
            if not ((name, value) in labels and _is_script(name))
        },
    }


def _is_script(name: str) -> bool:
    return name.upper().endswith(_SCRIPT)
