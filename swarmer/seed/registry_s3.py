"""The configuration of `docker-registry` for content in a bucket, and the credentials for it.

The configuration is `image/rootfs/etc/docker/registry/config.yml` with another storage.

Sources: the distribution project's page on its S3 driver; AWS' page on the credentials file.
"""

import json
import stat
from pathlib import Path
from typing import Any, Final

from swarmer.errors import SwarmerError
from swarmer.image.recipe import RECIPE
from swarmer.spec import Registry

_LITERAL: Final = RECIPE / "rootfs/etc/docker/registry/config.yml"

#: The keys of the file, and the variables of `docker-registry` for them.
_KEYS: Final = {"aws_access_key_id": "AWS_ACCESS_KEY_ID", "aws_secret_access_key": "AWS_SECRET_ACCESS_KEY"}


def configuration(registry: Registry) -> str:
    """The configuration file, as JSON, which is YAML too. No secret is in it."""
    from ruamel.yaml import YAML

    document: dict[str, Any] = YAML(typ="safe", pure=True).load(_LITERAL)  # pyright: ignore[reportUnknownMemberType]
    del document["storage"]["filesystem"]
    # swarmer-registry checks the storage itself, and can report the reason.
    del document["health"]
    driver: dict[str, Any] = {"bucket": registry.bucket, "region": registry.region, "rootdirectory": "/"}
    if registry.endpoint:
        driver |= {"regionendpoint": registry.endpoint, "secure": registry.endpoint.startswith("https:")}
    document["storage"]["s3"] = driver
    return json.dumps(document, indent=1) + "\n"


def environment(registry: Registry) -> dict[str, str]:
    """The variables with the access key and its secret; empty if the instance role is used.

    Raises:
        SwarmerError: the file can't be read, or others can read it.
    """
    if registry.credentials is None:
        return {}
    import configparser  # a slow import, which few clusters need

    file = Path(registry.credentials).expanduser()
    try:
        if stat.S_IMODE(file.stat().st_mode) & 0o077:
            raise SwarmerError(f"other users can read the credentials {file}", hint=f"run `chmod 600 {file}`")
        parser = configparser.ConfigParser(interpolation=None)
        parser.read_string(file.read_text())
        section = parser["default"]
        return {variable: section[key] for key, variable in _KEYS.items()}
    except OSError as error:
        raise SwarmerError(
            f"the credentials {file} can't be read: {error.strerror}",
            hint="correct `registry.credentials` in servers.yml, or delete it to use the instance role",
        ) from error
    # The cause is left out: it may quote the file.
    except (configparser.Error, KeyError, UnicodeDecodeError):
        raise SwarmerError(
            f"the credentials {file} don't have a section [default] with {' and '.join(_KEYS)}",
            hint="use the format of AWS' credentials file",
        ) from None
