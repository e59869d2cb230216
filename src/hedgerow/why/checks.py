"""What is wrong on the way from one endpoint to another, place by place, by the facts alone. Pure.

Each check looks at one place and names every problem it sees there: what is, what should be, which object it is, and
what would change it. None of them knows whether the packet got that far.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from .case import Case, End, Place, Problem
from .facts import NONE, AddressRows, Attachment, HostFacts, Inside

_GOOD_NEIGHBOURS = ("", "reachable", "stale", "delay", "probe", "noarp", "permanent")


def problems(case: Case) -> Iterator[Problem]:
    """Of both directions, in the order of the path."""
    here, there = case.here, case.there
    if here is None:
        yield no_agent(case, case.source, Place.SENDER)
    else:
        yield from sender(case, here)
        yield from wall(case, here)
        yield from way(case, here)
        if not case.is_local:
            yield from underlay(here, case.destination, Place.UNDERLAY)
    if there is None:
        if not case.is_local:
            yield no_agent(case, case.destination, Place.ARRIVAL)
        return
    if not case.is_local:
        yield from arrival(case, there)
    yield from receiver(case, there)
    yield from inside(case, there)
    yield from port(case, there)
    yield from back(case, here, there)


def no_agent(case: Case, end: End, place: Place) -> Problem:
    """Its agent is asked for facts, and says nothing."""
    return Problem(
        place=place,
        cause=f"the agent of {end.agent} does not answer: {case.silent.get(end.agent, 'it is not connected')}",
        thing=f"agent {end.agent}",
        change=f"see to the agent: hedgerow agent show {end.agent}",
    )


def sender(case: Case, here: HostFacts) -> Iterator[Problem]:
    """The source's container, its link, its program and its row."""
    end, attached = case.source, here.source
    if attached is None:
        yield _no_record(end, Place.SENDER)
        return
    yield from _container(attached, end, case.destination, Place.SENDER)
    yield from _link(here, attached, end, Place.LINK)


def _no_record(end: End, place: Place) -> Problem:
    return Problem(
        place=place,
        cause=f"{end.agent} has no endpoint {end.address} any more",
        thing=f"endpoint {end.called}",
        change="start its container again, or ask about the new one: hedgerow endpoint ls",
    )


def _container(attached: Attachment, end: End, other: End, place: Place) -> Iterator[Problem]:
    inside = attached.inside
    if inside is None:
        if attached.link is not None:
            cause = f"the network namespace of {end.called} cannot be found: its container has ended"
            yield Problem(place=place, cause=cause, thing=f"container of {end.called}", change="start it again")
        return
    link = inside.link
    enter = f"on {end.agent}: nsenter --net={inside.place}"
    if link is None:
        cause = f"{end.called} has lost its interface"
        yield Problem(place=place, cause=cause, thing=f"container of {end.called}", change="start it again")
        return
    thing = f"{link.name} inside {end.called}"
    if not link.is_up:
        cause, change = f"{link.name} inside {end.called} is down", f"{enter} ip link set {link.name} up"
        yield Problem(place=place, cause=cause, thing=thing, change=change)
    elif end.address not in inside.addresses:
        has = ", ".join(one for one in inside.addresses if not one.startswith("fe80")) or "none"
        cause = f"{link.name} inside {end.called} does not have the address {end.address} (it has {has})"
        bits = ip_address(end.address).max_prefixlen
        change = f"{enter} ip address add {end.address}/{bits} dev {link.name}"
        yield Problem(place=place, cause=cause, thing=thing, change=change)
    elif end.mac and link.mac != end.mac:
        cause = f"{link.name} inside {end.called} has the MAC {link.mac}, its endpoint {end.mac}"
        change = f"{enter} ip link set {link.name} address {end.mac}"
        yield Problem(place=place, cause=cause, thing=thing, change=change)
    else:
        yield from _route(inside, end, other, place, enter)


def _route(inside: Inside, end: End, other: End, place: Place, enter: str) -> Iterator[Problem]:
    assert inside.link is not None
    route, name = inside.route, inside.link.name
    if route.kind == "unicast" and route.link == name:
        return
    if route.kind == "unicast":
        cause = f"{end.called} sends what is for {other.address} by {route.link}, not by {name}"
        found = _another_of_ours(inside, other)
        cause += found
    elif route.kind == "none":
        cause = f"{end.called} has no route to {other.address}"
    else:
        cause = f"a route inside {end.called} makes {other.address} {route.kind}"
    change = f"{enter} ip route show; starting the container again sets its routes"
    yield Problem(place=place, cause=cause, thing=f"routes inside {end.called}", change=change)


def _another_of_ours(inside: Inside, other: End) -> str:
    return f": {other.network} is left by another network's interface" if len(inside.addresses) > 1 else ""


def _link(host: HostFacts, attached: Attachment, end: End, place: Place) -> Iterator[Problem]:
    """The host's end of an endpoint."""
    thing = f"link {attached.name} on {host.agent}"
    if attached.link is None:
        cause = f"the link of {end.called} is gone from {host.agent}"
        yield Problem(place=place, cause=cause, thing=thing, change=f"start the container of {end.called} again")
        return
    if not attached.link.is_up:
        cause, change = f"the link of {end.called} is down on {host.agent}", f"ip link set {attached.name} up"
        yield Problem(place=place, cause=cause, thing=thing, change=f"on {host.agent}: {change}")
    if attached.program == NONE:
        cause = f"no program is attached to the link of {end.called} on {host.agent}: all that it sends is refused"
        yield Problem(place=place, cause=cause, thing=thing, change=_mends(host))
    port, row = attached.port, f"map ports of {host.agent}, row of {attached.name}"
    if host.settings is None:
        yield _no_settings(host, place)
    if port is None:
        cause = f"{host.agent} lacks the row that lets {end.called} send"
        yield Problem(place=place, cause=cause, thing=row, change=_mends(host))
        return
    wrong = {
        f"network {end.network} (VNI {end.vni}), and it has VNI {port.vni}": port.vni != end.vni,
        f"MAC {end.mac}, and it has {port.mac}": bool(end.mac) and port.mac != end.mac,
        f"address {end.address}, and it has {', '.join(port.addresses) or 'none'}": end.address not in port.addresses,
    }
    if attached.before:
        yield _other_filter(host, attached.name, attached.before[0], place)
    for words, is_so in wrong.items():
        if is_so:
            cause = f"the row of {end.called} in {host.agent}'s map ports should have {words}"
            yield Problem(place=place, cause=cause, thing=row, change=_mends(host))


def _no_settings(host: HostFacts, place: Place) -> Problem:
    cause = f"the programs of {host.agent} have no settings: they drop everything"
    return Problem(place=place, cause=cause, thing=f"map host of {host.agent}", change=_mends(host))


def _other_filter(host: HostFacts, link: str, which: str, place: Place) -> Problem:
    return Problem(
        place=place,
        cause=f"another filter ({which}) stands before our program on {link} of {host.agent}",
        thing=f"tc filters of {link} on {host.agent}",
        change=f"on {host.agent}: tc filter show dev {link} ingress; take away what drops",
    )


def _mends(host: HostFacts) -> str:
    """What an agent keeps comes back by itself; when it cannot, it says why."""
    if host.faults:
        return f"the agent cannot: {host.faults[0]}"
    return f"its agent puts it back within seconds; if it stays: hedgerow agent show {host.agent}"


def wall(case: Case, here: HostFacts) -> Iterator[Problem]:
    if not case.policy.allowed:
        yield refused(case)
    elif not here.opens:
        yield _closed(case, here, Place.WALL)


def refused(case: Case) -> Problem:
    """By config.yaml."""
    policy = case.policy
    return Problem(
        place=Place.WALL,
        cause=policy.reason,
        thing=f"config.yaml, {policy.where}",
        change=policy.change,
        line=policy.line,
        by_policy=True,
    )


def _closed(case: Case, host: HostFacts, place: Place) -> Problem:
    one, other = case.source.network, case.destination.network
    cause = f"config.yaml opens {case.port} from {one} to {other}, and the map of {host.agent} does not"
    return Problem(
        place=place, cause=cause, thing=f"map allowed of {host.agent}, {one} to {other}", change=_mends(host)
    )


def way(case: Case, here: HostFacts) -> Iterator[Problem]:
    """Where the source's host leads the destination's address."""
    end = case.destination
    rows = here.rows.get(end.address, AddressRows())
    if case.is_local:
        return
    if rows.link:
        cause = f"{here.agent} takes {end.address} for an endpoint of its own, on {rows.link}; it is on {end.agent}"
        thing = f"map endpoints of {here.agent}, row {end.address}"
        yield Problem(place=Place.WAY, cause=cause, thing=thing, change=_mends(here))
        return
    yield from _leads(here, end, case.source.underlay, Place.WAY)


def _leads(host: HostFacts, end: End, underlay: str, place: Place) -> Iterator[Problem]:
    """The prefix of a remote address must lead to the other host, inside the right headers."""
    rows = host.rows.get(end.address, AddressRows())
    wrong = ""
    if rows.kind != "remote":
        wrong = f"does not lead {end.address} to {end.agent} ({rows.kind or 'no'} prefix)"
    elif rows.agent != end.underlay:
        wrong = f"leads {end.address} to {rows.agent}, and {end.agent} is {end.underlay}"
    elif rows.prefix_vni != end.vni:
        wrong = f"leads {end.address} into VNI {rows.prefix_vni}, and {end.network} has {end.vni}"
    elif rows.outer and host.settings and rows.outer != (underlay, end.underlay, host.settings.port):
        source, destination, port = rows.outer
        wrong = f"puts {end.address} into tunnel headers from {source} to {destination}, port {port}"
    if wrong:
        thing = f"map prefixes of {host.agent}, row of {end.address}"
        yield Problem(place=place, cause=f"{host.agent} {wrong}", thing=thing, change=_mends(host))


def underlay(host: HostFacts, other: End, place: Place) -> Iterator[Problem]:
    """From one host to the other, outside the tunnel."""
    link, route = host.underlay.link, host.underlay.route
    on = f"on {host.agent}"
    if link is None:
        cause = f"{host.agent} has no link with its underlay address"
        yield Problem(place=place, cause=cause, thing=f"underlay of {host.agent}", change="see agent.yaml, `underlay`")
        return
    thing = f"link {link.name} of {host.agent}"
    if not link.is_up:
        cause = f"the underlay's link {link.name} {on} is down"
        yield Problem(place=place, cause=cause, thing=thing, change=f"{on}: ip link set {link.name} up")
    elif not link.has_carrier:
        cause = f"the underlay's link {link.name} {on} has no carrier"
        yield Problem(place=place, cause=cause, thing=thing, change="see to the cable, the switch or the other end")
    elif route is not None and route.kind != "unicast":
        told = f"has no route to {other.agent}" if route.kind == "none" else f"has a route that makes it {route.kind}"
        cause = f"{host.agent} {told} ({other.underlay})"
        change = f"{on}: ip route get {other.underlay}; mend that route"
        yield Problem(place=place, cause=cause, thing=f"routes of {host.agent}", change=change)
    elif route is not None and route.link != link.name:
        cause = f"{host.agent} reaches {other.agent} ({other.underlay}) by {route.link}, not by {link.name}"
        change = f"{on}: ip route get {other.underlay}; tunnels leave by the link that has the underlay address"
        yield Problem(place=place, cause=cause, thing=f"routes of {host.agent}", change=change)
    elif host.underlay.neighbour[0] not in _GOOD_NEIGHBOURS:
        hop = route.via if route is not None and route.via else other.underlay
        cause = f"{host.agent} gets no answer from {hop} on {link.name} (neighbour {host.underlay.neighbour[0]})"
        change = f"is {other.agent} up, and on that link? {on}: ip neighbour show {hop}"
        yield Problem(place=place, cause=cause, thing=f"neighbour {hop} of {host.agent}", change=change)


def wrong_neighbour(host: HostFacts, other: HostFacts, end: End) -> Iterator[Problem]:
    """Both hosts are on one link, and the sender's table has another MAC for the receiver than the receiver has."""
    route, link = host.underlay.route, other.underlay.link
    state, mac = host.underlay.neighbour
    if route is None or route.via or link is None or not mac or mac == link.mac or state == "noarp":
        return
    cause = f"{host.agent} sends what is for {end.agent} to the MAC {mac} ({state}), and {end.agent} has {link.mac}"
    change = f"on {host.agent}: ip neighbour delete {end.underlay} dev {route.link}"
    thing = f"neighbour {end.underlay} of {host.agent}"
    yield Problem(place=Place.UNDERLAY, cause=cause, thing=thing, change=change)


def arrival(case: Case, there: HostFacts) -> Iterator[Problem]:
    """What the destination's host must know of the source to take a tunnel packet of it."""
    yield from takes(there, case.source, case.destination, Place.ARRIVAL)
    if case.policy.allowed and not there.opens:
        yield _closed(case, there, Place.ARRIVAL)


def takes(host: HostFacts, end: End, own: End, place: Place) -> Iterator[Problem]:
    """`end` is on another host; `own` is on this one."""
    link = host.underlay.link
    if link is not None and not link.is_up:
        cause, change = f"the underlay's link {link.name} on {host.agent} is down", f"ip link set {link.name} up"
        thing = f"link {link.name} of {host.agent}"
        yield Problem(place=place, cause=cause, thing=thing, change=f"on {host.agent}: {change}")
    if link is not None and host.programs.get(link.name) == NONE:
        cause = f"no program is attached to the underlay's link {link.name} on {host.agent}"
        yield Problem(place=place, cause=cause, thing=f"link {link.name} of {host.agent}", change=_mends(host))
    slow = host.settings.tunnel_link if host.settings is not None and not host.settings.fast else ""
    if slow and host.programs.get(slow) == NONE:
        cause = f"no program is attached to {slow} on {host.agent}, and tunnels come by it there"
        yield Problem(place=place, cause=cause, thing=f"link {slow} of {host.agent}", change=_mends(host))
    if link is not None and host.underlay.before:
        yield _other_filter(host, link.name, host.underlay.before[0], place)
    settings = host.settings
    if settings is None:
        yield _no_settings(host, place)
    elif settings.underlay != own.underlay:
        cause = f"the programs of {host.agent} take tunnels to {settings.underlay} only, its address is {own.underlay}"
        yield Problem(place=place, cause=cause, thing=f"map host of {host.agent}", change=_mends(host))
    if not host.underlay.knows_peer:
        cause = f"{host.agent} does not know {end.agent} ({end.underlay}): it drops its tunnel packets"
        thing = f"map agents of {host.agent}, row {end.underlay}"
        yield Problem(place=place, cause=cause, thing=thing, change=_mends(host))
    yield from _leads(host, end, own.underlay, place)


def receiver(case: Case, there: HostFacts) -> Iterator[Problem]:
    """The destination's row, link and program."""
    end, attached = case.destination, there.destination
    if attached is None:
        yield _no_record(end, Place.RECEIVER)
        return
    if attached.link is None:
        yield from _link(there, attached, end, Place.RECEIVER)
        return
    rows, thing = there.rows.get(end.address, AddressRows()), f"map endpoints of {there.agent}, row {end.address}"
    wrong = ""
    if not rows.link:
        wrong = f"lacks the row that leads to {end.called}"
    elif rows.link != attached.name:
        wrong = f"leads {end.address} to {rows.link}, and {end.called} is on {attached.name}"
    elif rows.vni != end.vni:
        wrong = f"takes {end.called} for one of VNI {rows.vni}, and {end.network} has {end.vni}"
    elif end.mac and rows.mac != end.mac:
        wrong = f"sends to {end.called} under the MAC {rows.mac}, its own is {end.mac}"
    if wrong:
        cause = f"{there.agent} {wrong}"
        yield Problem(place=Place.RECEIVER, cause=cause, thing=thing, change=_mends(there))
    if not attached.link.is_up:
        yield from _link(there, attached, end, Place.RECEIVER)


def inside(case: Case, there: HostFacts) -> Iterator[Problem]:
    if there.destination is not None:
        yield from _container(there.destination, case.destination, case.source, Place.INSIDE)


def port(case: Case, there: HostFacts) -> Iterator[Problem]:
    """Whether anybody listens, where, and whether they take what comes."""
    attached, asked, end = there.destination, case.question, case.destination
    if asked.protocol == "icmp" or attached is None or attached.inside is None or attached.inside.listeners is None:
        return
    heard = [one for one in attached.inside.listeners if one.port == asked.port]
    thing = f"port {case.port} of {end.called}"
    if not heard:
        others = sorted({one.port for one in attached.inside.listeners})
        told = f"; it does on {', '.join(map(str, others[:8]))}" if others else ""
        cause = f"nothing listens on {case.port} in {end.called}{told}"
        change = f"start the program that serves it, or ask for its port: hedgerow endpoint show {end.address}"
        yield Problem(place=Place.PORT, cause=cause, thing=thing, change=change)
        return
    hearing = [one for one in heard if one.hears(ip_address(end.address))]
    if not hearing:
        bound = ", ".join(sorted({one.address for one in heard}))
        who = heard[0].process or "the program"
        cause = f"{who} in {end.called} listens on {bound}:{asked.port} only, not on {end.address}"
        change = f"let it listen on {end.address} or on every address"
        yield Problem(place=Place.PORT, cause=cause, thing=thing, change=change)
        return
    one = hearing[0]
    who = f"{one.process or 'the program'} (pid {one.pid})"
    if one.state and all(each.state for each in hearing):
        cause = f"{who}, which listens on {case.port} in {end.called}, is {one.state}"
        change = f"on {end.agent}: kill -CONT {one.pid}" if one.state == "stopped" else "start its container again"
        yield Problem(place=Place.PORT, cause=cause, thing=thing, change=change, lasting=True)
    elif one.backlog and all(each.waiting > each.backlog for each in hearing):
        cause = f"{who} does not take its connections: {one.waiting} wait on {case.port} in {end.called}"
        change = "see what it waits for, or start its container again"
        yield Problem(place=Place.PORT, cause=cause, thing=thing, change=change, lasting=True)


def back(case: Case, here: HostFacts | None, there: HostFacts) -> Iterator[Problem]:
    """What only the answer needs."""
    source, destination = case.source, case.destination
    if there.destination is not None and there.destination.link is not None and there.destination.link.is_up:
        yield from _link(there, there.destination, destination, Place.BACK)
    if here is None:
        return
    if not case.is_local:
        yield from underlay(there, source, Place.BACK)
        yield from takes(here, destination, source, Place.BACK)
    rows = here.rows.get(source.address, AddressRows())
    if here.source is not None and rows.link != here.source.name:
        leads = (
            f"leads {source.address} to {rows.link}" if rows.link else f"lacks the row that leads to {source.called}"
        )
        thing = f"map endpoints of {here.agent}, row {source.address}"
        yield Problem(place=Place.BACK, cause=f"{here.agent} {leads}", thing=thing, change=_mends(here))
