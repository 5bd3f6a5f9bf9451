"""How much longer everything takes on this node than on a machine of usual speed: an emulated one, for example.

The seed data says it, once for all programs of the node, for consul, and for the harness that watches.
"""

import json
from pathlib import Path

_FACTS = Path("/etc/swarmer/node.json")


def _slowness() -> float:
    return float(json.loads(_FACTS.read_text()).get("slowness", 1)) if _FACTS.exists() else 1.0


_SLOWNESS = _slowness()


def patient(seconds: float) -> float:
    """What may take so many seconds on a machine of usual speed, with the patience that this node needs."""
    return seconds * _SLOWNESS
