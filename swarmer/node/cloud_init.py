"""cloud-init with less processor time; `cloud-init-main.service` runs it by this module.

In one boot cloud-init parses YAML 86 times, by the parser of PyYAML that is written in Python. The one of libyaml,
which PyYAML brings along, takes a tenth of the time. Without the package `jsonschema`, which takes time to load,
cloud-init doesn't validate the seed data: `tests/test_seed_data.py` has done that.
"""

import sys

import yaml


def main() -> None:
    """Run cloud-init with the arguments of this program."""
    yaml.SafeLoader = yaml.CSafeLoader
    sys.modules["jsonschema"] = None  # type: ignore[assignment]
    # Only now: on import, it derives a loader of its own.
    from cloudinit.cmd.main import main as run  # pyright: ignore[reportMissingImports]

    sys.exit(run())


if __name__ == "__main__":
    main()
