"""Commands that scenarios run on nodes: they read their input, and end when their time is over."""

import pytest

from swarmer.cluster_node import Node
from swarmer.ssh import CommandTimeout


def test_a_command_gets_its_input_and_its_quotes(node: Node) -> None:
    assert node.succeed("""cat; printf '%s\\n' "it's" $((1 + 2))""", input="the input\n") == "the input\nit's\n3\n"


@pytest.mark.parametrize("hanging", ["sleep 4711", "trap '' TERM; sleep 4711; sleep 4711"], ids=["plain", "stubborn"])
def test_a_command_that_is_given_up_ends_on_the_node_as_well(node: Node, hanging: str) -> None:
    with pytest.raises(CommandTimeout) as raised:
        node.execute(f"echo a line; {hanging}", timeout=1, input="")
    assert raised.value.output == "a line\n"
    node.wait_until_succeeds("! pgrep --full '[s]leep 4711'", timeout=10)
