"""The swarm of a node as a program: `swarmer-swarm.service` on every node."""

import json
import sys
import threading
from typing import NoReturn

from swarmer.node.consul_agent import SEED, Agent, Refused, own_token
from swarmer.node.docker_engine import EngineError
from swarmer.node.slowness import scaled
from swarmer.node.swarm.engine import Engine
from swarmer.node.swarm.member import Member
from swarmer.node.swarm.records import Store

#: Seconds until the next try while consul or docker isn't ready: the first pause, and the longest.
PAUSE, LONGEST_PAUSE = scaled(0.05), scaled(0.25)


def watch(engine: Engine, changed: threading.Event) -> NoReturn:
    """Set `changed` whenever a node of the swarm joins, leaves or changes. Never ends."""
    while True:
        try:
            for _ in engine.node_events():
                changed.set()
        except EngineError:
            pass
        # Until there is another stream, events may be missed.
        changed.set()
        threading.Event().wait(1)


def main() -> NoReturn:
    """Take one step after the other. Never ends."""
    facts = json.loads((SEED / "node.json").read_text())
    manages = facts["swarm"] != "agent"
    known = json.loads((SEED / "swarm.json").read_text()) if manages else {}
    engine = Engine()
    agent = Agent(own_token("swarm-manager" if manages else "swarm-worker"), timeout=15)
    member = Member(facts, known, engine, Store(agent, facts["name"]))
    changed = threading.Event()
    if manages:
        threading.Thread(target=watch, args=(engine, changed), daemon=True).start()
    last, longer = "", PAUSE
    while True:
        try:
            pause = member.step()
            last, longer = "", PAUSE
        except (Refused, EngineError) as error:
            if str(error) != last:
                last = str(error)
                print(last, flush=True)
            pause = longer
            longer = min(longer * 1.2, LONGEST_PAUSE)
        changed.wait(pause)
        changed.clear()


if __name__ == "__main__":
    sys.exit(main())
