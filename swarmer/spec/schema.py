"""What `servers.yml` may hold, for editors."""

from typing import Any

from swarmer.spec.model import Spec


def json_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of what the file may hold, for editors."""
    schema = Spec.model_json_schema()
    server, keys = schema["$defs"]["Server"], schema["properties"]
    server["required"] = [key for key in server["required"] if key not in ("consul", "swarm")]
    keys["servers"]["minItems"] = 1
    keys["nodes"] = keys["servers"] | {"description": "An older name for `servers`."}
    keys["box"] = server["properties"]["box"] | {"description": "The vagrant box of nodes that name none."}
    schema["required"].remove("servers")
    one_of = [{"required": ["servers"]}, {"required": ["nodes"]}]
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return dialect | schema | {"title": "servers.yml", "oneOf": one_of}
