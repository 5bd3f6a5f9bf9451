"""What the nodes of a swarm record in consul is read as it was written."""

from hypothesis import given
from hypothesis import strategies as st

from swarmer.node.swarm.records import Identity, Known

ids = st.text("abc123", min_size=1)


@given(content=st.binary(max_size=200))
def test_any_content_of_a_record_can_be_read(content: bytes) -> None:
    identity = Identity.parse(content.decode(errors="replace"))
    assert len(identity.former) <= 5


@given(known=st.builds(Known, ids, st.booleans()))
def test_the_leaders_view_of_a_node_is_read_as_it_was_written(known: Known) -> None:
    assert Known.parse(str(known)) == known


@given(had=st.lists(ids, min_size=1, max_size=20))
def test_a_node_records_its_id_and_the_latest_of_its_former_ones(had: list[str]) -> None:
    identity = Identity()
    for each in had:
        identity = identity.becomes(each)
        assert Identity.parse(str(identity)) == identity
    assert identity.node == had[-1]
    assert identity.node not in identity.former
    assert len(identity.former) == min(len(set(had)) - 1, 5)
    assert identity.becomes(identity.node) == identity
