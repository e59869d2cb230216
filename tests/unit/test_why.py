"""The judgement behind `hedgerow why`, on made-up facts: what stops a flow, and what does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hedgerow.kernel.listeners import Listener
from hedgerow.kernel.lookups import LinkState, RouteTo
from hedgerow.why.case import Case, End, Place, Policy
from hedgerow.why.facts import (
    CURRENT,
    NONE,
    AddressRows,
    Attachment,
    HostFacts,
    Inside,
    PortRow,
    Probe,
    Question,
    Settings,
    Stack,
    Step,
    Underlay,
)
from hedgerow.why.judge import judge, reached
from hedgerow.why.words import REASONS

A = End(
    called="web", address="10.0.1.2", network="dev", vni=5000, agent="n1", underlay="192.0.2.1", mac="02:00:00:00:00:0a"
)
B = End(
    called="db", address="10.0.2.2", network="dev", vni=5000, agent="n2", underlay="192.0.2.2", mac="02:00:00:00:00:0b"
)
ASKED = Question(source=A.address, destination=B.address, protocol="tcp", port=80, source_port=40000, peer=B.underlay)
OPEN = Policy(allowed=True, reason="inside dev everything may pass", where="dev", line=3)


def link(name: str, mac: str = "", **changed: Any) -> LinkState:
    return replace(LinkState(7, name, mac, 1420, is_up=True, has_carrier=True), **changed)


def attachment(end: End) -> Attachment:
    """An endpoint that is well."""
    listens = Listener(protocol="tcp", address="0.0.0.0", port=80, process="nginx", pid=9, backlog=128)
    inside = Inside(
        place="/run/netns/x",
        link=link("eth0", end.mac),
        addresses=(end.address,),
        route=RouteTo("unicast", "eth0", "169.254.64.1"),
        listeners=(listens,),
    )
    port = PortRow(vni=end.vni, mac=end.mac, addresses=(end.address,))
    return Attachment(name=f"hr-{end.called}", link=link(f"hr-{end.called}"), program=CURRENT, port=port, inside=inside)


def host(own: End, other: End) -> HostFacts:
    """A host that is well; `own` is its endpoint."""
    remote = AddressRows(
        kind="remote", prefix_vni=other.vni, agent=other.underlay, outer=(own.underlay, other.underlay, 64000)
    )
    here = AddressRows(link=f"hr-{own.called}", mac=own.mac, vni=own.vni, kind="local", prefix_vni=own.vni)
    mac = f"aa:00:00:00:00:0{own.agent[1]}"
    return HostFacts(
        agent=own.agent,
        underlay=Underlay(
            link=link("eth0", mac, mtu_bytes=1500),
            route=RouteTo("unicast", "eth0"),
            neighbour=("reachable", f"aa:00:00:00:00:0{other.agent[1]}"),
        ),
        settings=Settings(
            tunnel_link="hedge0",
            underlay_link="eth0",
            underlay=own.underlay,
            inner_mtu_bytes=1450,
            port=64000,
            fast=True,
        ),
        programs={"eth0": CURRENT, "hedge0": CURRENT, "hr-peer": CURRENT},
        rows={own.address: here, other.address: remote},
        opens=True,
        source=attachment(own) if own is A else None,
        destination=attachment(own) if own is B else None,
    )


SEEN, WIRE = Step(program="from_container", stage="seen"), Step(program="from_container", stage="wire")
ARRIVED = (Step(program="from_underlay", stage="seen"), Step(program="from_underlay", stage="delivered"))
RETURNS = (
    Step(program="from_container", stage="seen", back=True),
    Step(program="from_container", stage="wire", back=True),
)
CAME_BACK = (
    Step(program="from_underlay", stage="seen", back=True),
    Step(program="from_underlay", stage="delivered", back=True),
)
ANSWERED = Probe(outcome="answered", took_ms=0.4, steps=(SEEN, WIRE, *CAME_BACK), reaches_host=True, carries_full=True)
WELL = Case(
    question=ASKED,
    source=A,
    destination=B,
    policy=OPEN,
    here=host(A, B),
    there=host(B, A),
    probe=ANSWERED,
    arrived=(*ARRIVED, *RETURNS),
)


def silent(*steps: Step, arrived: tuple[Step, ...] = (), **changed: Any) -> Case:
    """The probe was not answered, and this was seen of it."""
    return replace(WELL, probe=replace(ANSWERED, outcome="silent", steps=steps), arrived=arrived, **changed)


def test_an_answered_probe_is_no_trouble() -> None:
    answer = judge(WELL)
    assert (answer.works, answer.cause, answer.notes) == (True, None, ())
    assert [stage.place for stage in answer.stages] == list(Place)
    assert {stage.state for stage in answer.stages} == {"ok"}


def test_what_looks_wrong_and_lets_it_pass_is_a_note() -> None:
    there = replace(WELL.there, programs={"eth0": NONE})
    answer = judge(replace(WELL, there=there))
    assert (answer.works, answer.cause) == (True, None)
    assert answer.notes == ("no program is attached to the underlay's link eth0 on n2, and it passes",)


@pytest.mark.parametrize(
    ("case", "place"),
    [
        (silent(), Place.SENDER),
        (silent(SEEN), Place.LINK),
        (silent(SEEN, WIRE), Place.WAY),
        (silent(SEEN, WIRE, arrived=ARRIVED[:1]), Place.ARRIVAL),
        (silent(SEEN, WIRE, arrived=ARRIVED), Place.RECEIVER),
        (silent(SEEN, WIRE, arrived=(*ARRIVED, *RETURNS)), Place.BACK),
    ],
)
def test_the_trace_says_how_far_it_came(case: Case, place: Place) -> None:
    assert reached(case) == place


@pytest.mark.parametrize(
    ("case", "place", "says"),
    [
        (silent(), Place.SENDER, "web does not let the packet out"),
        (silent(SEEN, WIRE), Place.UNDERLAY, "UDP port 64000 from n1 to n2 is blocked"),
        (silent(SEEN, WIRE, arrived=ARRIVED), Place.INSIDE, "the packet comes to db, and no answer comes"),
        (silent(SEEN, WIRE, arrived=(*ARRIVED, *RETURNS)), Place.BACK, "UDP port 64000 from n2 to n1 is blocked"),
        (silent(SEEN, WIRE, *CAME_BACK, arrived=(*ARRIVED, *RETURNS)), Place.SENDER, "web"),
        (
            silent(SEEN, Step(program="from_container", stage="answered", reason="too_big")),
            Place.WALL,
            "n1 drops the packet (too_big)",
        ),
        (
            silent(SEEN, WIRE, arrived=(*ARRIVED, replace(RETURNS[0], stage="dropped", reason="source_mac"))),
            Place.BACK,
            "n2 drops the answer (source_mac)",
        ),
    ],
)
def test_where_nothing_looks_wrong_the_trace_is_the_cause(case: Case, place: Place, says: str) -> None:
    cause = judge(case).cause
    assert cause is not None
    assert cause.place == place
    assert says in cause.cause


def test_the_first_thing_wrong_from_where_it_came_to_is_the_cause() -> None:
    """What lies before was passed, whatever it looks like."""
    here = replace(WELL.here, rows={})
    there = replace(WELL.there, destination=replace(WELL.there.destination, link=None))
    case = silent(SEEN, WIRE, arrived=ARRIVED, here=here, there=there)
    cause = judge(case).cause
    assert cause is not None
    assert (cause.place, cause.cause) == (Place.RECEIVER, "the link of db is gone from n2")


def test_the_tunnel_s_own_device_matters_where_packets_take_it() -> None:
    programs = {"eth0": CURRENT, "hedge0": NONE}
    fast = replace(WELL.there, programs=programs)
    slow = replace(fast, settings=replace(fast.settings, fast=False))
    causes = [judge(silent(SEEN, WIRE, arrived=ARRIVED[:1], there=there)).cause for there in (fast, slow)]
    assert [cause is not None and "hedge0" in cause.cause for cause in causes] == [False, True]


def test_a_refusal_by_config_yaml_is_told_from_a_fault() -> None:
    refused = Policy(allowed=False, reason="neither dev nor db allows it", where="db.allow", line=14, change="add it")
    answer = judge(silent(SEEN, Step(program="from_container", stage="answered", reason="isolated"), policy=refused))
    assert answer.cause is not None
    assert (answer.cause.by_policy, answer.cause.line, answer.cause.place) == (True, 14, Place.WALL)
    assert [stage.state for stage in answer.stages] == ["ok", "ok", "stop", *["none"] * 7]


def test_a_wall_that_is_open_although_refused_is_trouble() -> None:
    answer = judge(replace(WELL, policy=Policy(allowed=False, reason="nothing opens it")))
    assert answer.cause is not None
    assert (answer.works, answer.cause.by_policy) == (False, False)
    assert answer.cause.cause == "it passes although config.yaml refuses it: nothing opens it"


def test_a_path_that_loses_large_packets_is_trouble_though_small_ones_pass() -> None:
    cause = judge(replace(WELL, probe=replace(ANSWERED, carries_full=False))).cause
    assert cause is not None
    assert cause.place == Place.UNDERLAY
    assert judge(replace(WELL, probe=replace(ANSWERED, reaches_host=False, carries_full=False))).works


def test_an_agent_that_does_not_answer_is_the_cause_only_where_it_does_not_pass() -> None:
    without = replace(WELL, there=None, silent={"n2": "it is not connected"})
    assert judge(without).works
    cause = judge(replace(without, probe=replace(ANSWERED, outcome="silent", steps=(SEEN, WIRE)), arrived=())).cause
    assert cause is not None
    assert cause.cause == "the agent of n2 does not answer: it is not connected"


def test_a_datagram_needs_no_answer() -> None:
    udp = replace(ASKED, protocol="udp")
    listens = Listener(protocol="udp", address="0.0.0.0", port=80)
    inside = replace(WELL.there.destination.inside, listeners=(listens,))
    there = replace(WELL.there, destination=replace(WELL.there.destination, inside=inside))
    delivered = silent(SEEN, WIRE, arrived=ARRIVED, question=udp, there=there)
    assert judge(delivered).works
    assert not judge(replace(delivered, arrived=ARRIVED[:1])).works


@pytest.mark.parametrize(
    ("listener", "says"),
    [
        (None, "nothing listens on 80/tcp in db"),
        ({"address": "127.0.0.1"}, "nginx in db listens on 127.0.0.1:80 only"),
        ({"address": "::"}, "listens on :::80 only"),
        ({"port": 81}, "nothing listens on 80/tcp in db; it does on 81"),
    ],
)
def test_who_listens_where(listener: dict[str, Any] | None, says: str) -> None:
    heard = WELL.there.destination.inside.listeners[0]
    found = () if listener is None else (replace(heard, **listener),)
    inside = replace(WELL.there.destination.inside, listeners=found)
    there = replace(WELL.there, destination=replace(WELL.there.destination, inside=inside))
    refused = replace(silent(SEEN, WIRE, arrived=(*ARRIVED, *RETURNS), there=there))
    cause = judge(replace(refused, probe=replace(refused.probe, outcome="refused"))).cause
    assert cause is not None
    assert says in cause.cause


def test_one_host_has_no_tunnel() -> None:
    same = replace(B, agent="n1", underlay=A.underlay)
    rows = WELL.here.rows | {B.address: WELL.there.rows[B.address]}
    both = replace(WELL.here, rows=rows, destination=attachment(B))
    answer = judge(replace(WELL, destination=same, here=both, there=both, arrived=()))
    assert answer.works
    assert Place.UNDERLAY not in [stage.place for stage in answer.stages]


OUTSIDE = replace(
    WELL,
    question=replace(ASKED, destination="203.0.113.1", peer=""),
    destination=End(called="203.0.113.1", address="203.0.113.1"),
    policy=Policy(True, "dev may reach the outside", "dev", 3),
    here=replace(host(A, B), stack=Stack(has_table=True, route=RouteTo("unicast", "eth0", "192.0.2.254"))),
    there=None,
    arrived=(),
    probe=replace(ANSWERED, steps=(SEEN, Step(program="from_container", stage="host"))),
)


def outside(**changed: Any) -> Case:
    """The probe was not answered, and the host's stack is so."""
    stack = replace(OUTSIDE.here.stack, **changed)
    return replace(OUTSIDE, here=replace(OUTSIDE.here, stack=stack), probe=replace(OUTSIDE.probe, outcome="silent"))


def test_the_way_out_has_its_own_places() -> None:
    answer = judge(OUTSIDE)
    assert (answer.works, answer.cause) == (True, None)
    assert [stage.what for stage in answer.stages] == [
        "web leaves by eth0",
        "hr-web has its program and its row",
        "dev may reach the outside",
        "sends it on by eth0 via 192.0.2.254",
        "the answer came after 0.4 ms",
    ]


@pytest.mark.parametrize(
    ("case", "place", "says"),
    [
        (
            outside(forwarding_off="ipv4/conf/hr-host/forwarding"),
            Place.WAY,
            "n1 does not forward (net/ipv4/conf/hr-host/forwarding is off)",
        ),
        (outside(route=RouteTo("none")), Place.WAY, "n1 has no route to 203.0.113.1"),
        (outside(route=RouteTo("blackhole")), Place.WAY, "n1 has a route that is blackhole"),
        (outside(has_table=False), Place.WAY, "is not masqueraded"),
        (outside(), Place.BACK, "n1 sends it on, and no answer comes from 203.0.113.1"),
        (outside(chains=("ip filter, chain FORWARD: policy drop",)), Place.BACK, "chain FORWARD: policy drop"),
        (replace(outside(), policy=Policy(False, "dev is internal", "dev.internal")), Place.WALL, "dev is internal"),
        (replace(outside(), here=None, silent={"n1": "away"}), Place.SENDER, "the agent of n1 does not answer"),
    ],
)
def test_what_stops_the_way_out(case: Case, place: Place, says: str) -> None:
    if not case.policy.allowed:
        case = replace(case, probe=replace(case.probe, steps=(SEEN,)))
    if case.here is None:
        case = replace(case, probe=None)
    cause = judge(case).cause
    assert cause is not None
    assert cause.place == place
    assert says in cause.cause


def test_every_reason_of_the_data_path_has_words() -> None:
    from hedgerow.kernel.maps import Reason

    told_otherwise = {"not_ip", "vlan", "foreign_tunnel", "unanswered"}
    """No probe of ours can be dropped for these."""
    assert {reason.name.lower() for reason in Reason} - told_otherwise == set(REASONS)
