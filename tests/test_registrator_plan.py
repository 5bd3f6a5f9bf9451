"""The plan from what an agent holds to what it should hold."""

import math
import posixpath
from dataclasses import replace
from urllib.parse import quote, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from registrator_node import Node, plain, turn

from swarmer.node.registrator.checks import Check, Status
from swarmer.node.registrator.events import changes_of
from swarmer.node.registrator.plan import Plan, RegisteredService, difference
from swarmer.node.registrator.services import CONTAINER, OWNER, Service, is_addressable
from swarmer.node.registrator.wakeups import Backoff, Changes, Wakeups

NODE = "node"
ids = st.sampled_from([f"{NODE}:web:{port}" for port in range(80, 84)] + ["mine", "theirs", "other:web:80"])
statuses = st.sampled_from(Status)


@st.composite
def services(draw: st.DrawFn) -> Service:
    """Any service that could be wanted."""
    identity, container = draw(ids), draw(st.sampled_from(["a" * 12, "b" * 12]))
    refreshes = draw(st.lists(st.none() | st.integers(1, 600), max_size=2))
    return Service(
        id=identity,
        name=draw(st.sampled_from(["web", "db"])),
        address=draw(st.sampled_from(["10.0.0.1", "10.0.0.2"])),
        port=draw(st.integers(1, 3)),
        tags=tuple(draw(st.lists(st.sampled_from("xyz"), unique=True))),
        meta={OWNER: NODE, CONTAINER: container, **draw(st.dictionaries(st.just("k"), st.sampled_from("12")))},
        checks=tuple(
            Check(f"{number}:{identity}", {}, draw(st.none() | statuses), refresh)
            for number, refresh in enumerate(refreshes)
        ),
        container=container * 5,
    )


def held(service: Service) -> RegisteredService:
    """The service as an agent holds it right after its registration."""
    checks = {check.id: str(check.status or Status.CRITICAL) for check in service.checks}
    return RegisteredService(
        service.id, service.name, service.address, service.port, service.tags, dict(service.meta), checks
    )


def distinct(found: list[Service]) -> list[Service]:
    return list({service.id: service for service in found}.values())


wanted_services = st.lists(services(), max_size=5).map(distinct)
foreign = st.lists(
    st.builds(
        lambda service, owner: replace(held(service), meta={OWNER: owner} if owner else {}),
        services(),
        st.sampled_from(["", "another"]),
    ),
    max_size=3,
)


def applied(plan: Plan, agent: list[RegisteredService]) -> list[RegisteredService]:
    """What the agent holds once the plan was followed."""
    state = {service.id: service for service in agent if service.id not in plan.deregister}
    state |= {service.id: held(service) for service in plan.register}
    for check in plan.report:
        for identity, service in state.items():
            if check.id in service.checks:
                checks = {**service.checks, check.id: str(check.status or Status.CRITICAL)}
                state[identity] = replace(service, checks=checks)
    return list(state.values())


@given(wanted_services, wanted_services, foreign)
def test_one_plan_is_enough(wanted: list[Service], before: list[Service], others: list[RegisteredService]) -> None:
    agent = list({service.id: service for service in [*map(held, before), *others]}.values())
    plan = difference(wanted, agent, hostname=NODE)
    after = {service.id: service for service in applied(plan, agent)}
    refused = {refusal.service.id for refusal in plan.refused}
    for service in wanted:
        if service.id not in refused:
            assert after[service.id].meta == service.meta
            assert (after[service.id].address, after[service.id].port) == (service.address, service.port)
            for check in service.checks:
                if check.refresh is not None:
                    assert after[service.id].checks[check.id] == (check.status or Status.CRITICAL)
    ours = {identity for identity, service in after.items() if service.meta.get(OWNER) == NODE}
    assert ours == {service.id for service in wanted} - refused
    again = difference(wanted, list(after.values()), hostname=NODE)
    assert again == Plan(refused=plan.refused)


@given(wanted_services, foreign)
def test_what_others_registered_stays_as_it_is(wanted: list[Service], others: list[RegisteredService]) -> None:
    agent = list({service.id: service for service in others}.values())
    plan = difference(wanted, agent, hostname=NODE)
    assert plan.deregister == ()
    # An ID of our own form can only be a service of ours from before it had a mark.
    touched = {service.id for service in plan.register} & {service.id for service in agent}
    assert all(identity.startswith(f"{NODE}:") for identity in touched)


@pytest.mark.parametrize("identity", ["consul", "swarm", "registry"])
def test_no_container_takes_the_id_of_a_service_of_the_cluster(identity: str) -> None:
    service = Service(identity, "web", "10.0.0.1", 80, (), {OWNER: "node"}, ())
    plan = difference([service], [], hostname="node")
    assert (plan.register, [refusal.service for refusal in plan.refused]) == ((), [service])


@pytest.mark.parametrize(
    "identity",
    ["shop#1", "shop?x=1", "team/shop", "team/", "a b", "a+b", "a&b=c;d", "é", 'a"b', "a\\b", "~a", "...", "a/..b"],
)
def test_an_id_of_any_characters_that_consul_can_find_again_is_taken(identity: str) -> None:
    service = Service(identity, "web", "10.0.0.1", 80, (), {OWNER: NODE}, ())
    assert difference([service], [], hostname=NODE) == Plan(register=(service,))


@pytest.mark.parametrize(
    "identity",
    ["/team/shop", "team//shop", "team/../shop", "./a", "a/.", "..", "/", "50%", "a%2Fb", "a\nb", "a\0b", ""],
)
def test_an_id_that_consul_could_not_find_again_is_refused(identity: str) -> None:
    service = Service(identity, "web", "10.0.0.1", 80, (), {OWNER: NODE}, ())
    (refusal,) = difference([service], [], hostname=NODE).refused
    assert refusal.service == service
    assert "set another SERVICE_ID" in refusal.reason


@given(st.text(st.sampled_from("a./%#?é \n"), max_size=8))
def test_no_router_that_cleans_paths_changes_an_id_that_is_taken(identity: str) -> None:
    if is_addressable(identity):
        path = f"/v1/agent/service/deregister/{identity}"
        assert unquote(urlsplit(quote(path)).path) == path
        assert posixpath.normpath(path) == path.removesuffix("/")
        assert posixpath.basename(path.removesuffix("/"))


@given(wanted_services)
def test_nothing_is_done_when_nothing_changed(wanted: list[Service]) -> None:
    assert difference(wanted, list(map(held, wanted)), hostname=NODE) == Plan()


@given(wanted_services, wanted_services)
def test_services_of_a_container_that_failed_are_kept(wanted: list[Service], before: list[Service]) -> None:
    plan = difference(wanted, list(map(held, before)), hostname=NODE, keep={"a" * 12})
    gone = {service.id: service for service in before if service.id in plan.deregister}
    assert all(service.meta[CONTAINER] == "b" * 12 for service in gone.values())


@given(services())
def test_a_check_that_is_due_is_reported_although_it_did_not_change(service: Service) -> None:
    due = {check.id for check in service.checks}
    plan = difference([service], [held(service)], hostname=NODE, due=due)
    assert plan.register == ()
    assert {check.id for check in plan.report} == {check.id for check in service.checks if check.refresh is not None}


def test_a_missing_check_is_registered_anew() -> None:
    service = Service("node:a:1", "a", "10.0.0.1", 1, (), {OWNER: NODE}, (Check("c", {}),))
    without = replace(held(service), checks={})
    assert difference([service], [without], hostname=NODE).register == (service,)


# -- events ------------------------------------------------------------------------------------------------


def test_events_say_what_to_look_at() -> None:
    def event(kind: str, action: str, identity: str = "x", **attributes: str) -> Changes:
        return changes_of({"Type": kind, "Action": action, "Actor": {"ID": identity, "Attributes": attributes}})

    for action in ("start", "die", "destroy", "rename", "health_status: healthy"):
        assert event("container", action) == Changes(containers={"x"})
    assert event("network", "connect", "net", container="c") == Changes(containers={"c"})
    assert not event("network", "create", "net")
    assert not event("container", "create")
    assert event("service", "update") == Changes(swarm=True)
    assert event("node", "update") == Changes(swarm=True)
    assert not event("image", "pull")
    assert not changes_of({})


def test_changes_are_gathered_until_they_are_taken() -> None:
    wakeups = Wakeups()
    wakeups.report(Changes(containers={"a"}))
    wakeups.report(Changes(containers={"b"}, swarm=True))
    assert wakeups.take(0) == Changes(containers={"a", "b"}, swarm=True)
    assert not wakeups.take(0)


def test_pauses_grow_up_to_a_bound_and_begin_anew() -> None:
    backoff = Backoff(first=1, most=5)
    assert [backoff.next() for _ in range(5)] == [1, 2, 4, 5, 5]
    backoff.reset()
    assert backoff.next() == 1


@pytest.mark.parametrize(("identity", "retried"), [("/team/shop", False), ("swarm", False), ("taken", True)])
def test_a_refusal_is_retried_if_consul_may_change_its_mind(identity: str, retried: bool) -> None:
    node = Node([plain(f"SERVICE_ID={identity}")])
    node.consul.services["taken"] = {"ID": "taken", "Service": "x", "Address": "", "Port": 1, "Tags": [], "Meta": {}}
    made = node.registrator()
    turn(made)
    assert (made._retry.at < math.inf) == retried
    assert set(node.consul.services) == {"taken"}
