"""How much slower this node is than a machine of usual speed, such as an emulated one.

The factor comes with the seed data: the programs of the node, consul and the harness all use the same.
"""

import json
from pathlib import Path

_FACTS = Path("/etc/swarmer/node.json")


def _slowness() -> float:
    return float(json.loads(_FACTS.read_text()).get("slowness", 1)) if _FACTS.exists() else 1.0


_SLOWNESS = _slowness()


def scaled(seconds: float) -> float:
    """Seconds that this node may take for what takes a machine of usual speed so many."""
    return seconds * _SLOWNESS
