"""What is said of each place when nothing is wrong there, and of each reason for which the data path drops a packet."""

from __future__ import annotations

from ipaddress import ip_address

from .case import Case, Place

REASONS = {
    "malformed": ("its headers lie about the length, or are cut short", ""),
    "source_mac": ("it bears another MAC than the container's own", "no bridge or macvlan inside the container"),
    "source_address": ("it bears another source address than the container's own", "send from the container's address"),
    "destination_address": ("that address is nowhere", "ask for the address of an endpoint: hedgerow endpoint ls"),
    "multicast": ("networks carry no multicast", "use unicast"),
    "link_local": ("link-local addresses are closed", "use the address of an endpoint"),
    "isolated": ("the networks may not talk", "add `allow` to one of them in config.yaml, then: hedgerow apply FILE"),
    "no_rule": ("no rule opens it", "add one under `rules` in config.yaml, then: hedgerow apply FILE"),
    "unsolicited": ("it answers nothing that was opened, and may open nothing", "let the other side begin"),
    "rule_changed": ("the rule that let it begin is gone", "see config.yaml, `rules`"),
    "connections_full": ("its sender has too many flows open already", "close some, or look for what opens them"),
    "lost_fragment": ("the first fragment of its packet was not seen", "send packets that fit the MTU"),
    "internal": ("its network is internal", "take `internal: true` out of the network, then: hedgerow apply FILE"),
    "no_endpoint": ("no container has that address", "see who has: hedgerow endpoint ls"),
    "closed": ("that address is closed to everybody", "talk to the container's own address"),
    "tunnel_port": ("containers may not send to a host's tunnel port", "use another port"),
    "too_big": ("it does not fit the tunnel in one piece", "lower dcos_overlay_mtu in config.yaml"),
    "unknown_agent": ("the sending host is not known there", "compare: hedgerow agent ls"),
    "not_owner": ("the sending host does not own the packet's source address", "compare: hedgerow agent ls"),
    "wrong_vni": ("it came under another network's VNI", "compare: hedgerow network ls"),
    "not_set_up": ("the data path is not set up there", "read the agent's log"),
    "helper": ("the kernel refused to handle the packet", "check the host's memory"),
    "to_host": ("containers reach nothing of hosts but DNS and ping", "add the port to `host_services` of the network"),
    "from_host": ("hosts may not call containers of that network", "set `hosts: allow` for it in config.yaml"),
    "barred": ("it would leave by another engine's bridge", "start both containers on a network of Hedgerow"),
    "unjudged": ("the host's firewall table did not judge it", "its agent writes the table again within seconds"),
}
"""Cause and cure of each drop reason, in one line; docs/reference/drop-reasons.md has more."""


def place_words(case: Case, place: Place) -> tuple[str, str] | None:
    """Which host, and what was seen there. None: this flow does not come by."""
    return _leaving(case, place) if case.is_outside and place > Place.WALL else _between_endpoints(case, place)


def _between_endpoints(case: Case, place: Place) -> tuple[str, str] | None:
    source, destination = case.source, case.destination
    match place:
        case Place.SENDER:
            return source.agent, f"{source.called} leaves by {_interface(case, is_source=True)}"
        case Place.LINK:
            link = case.here.source.name if case.here is not None and case.here.source is not None else "its link"
            return source.agent, f"{link} has its program and its row"
        case Place.WALL:
            return source.agent, case.policy.reason
        case Place.WAY:
            to = "a link of its own" if case.is_local else f"{destination.agent} ({destination.underlay})"
            return source.agent, f"leads {destination.address} to {to}"
        case Place.UNDERLAY:
            return None if case.is_local else (source.agent, _between(case))
        case Place.ARRIVAL:
            return None if case.is_local else (destination.agent, f"takes tunnel packets of {source.agent}")
        case Place.RECEIVER:
            there = case.there.destination if case.there is not None else None
            return destination.agent, f"leads {destination.address} to {there.name if there else 'its link'}"
        case Place.INSIDE:
            interface = _interface(case, is_source=False)
            return destination.agent, f"{destination.called} has its address on {interface}, and a route back"
        case Place.PORT:
            return None if case.question.protocol == "icmp" else (destination.agent, _listening(case))
        case _:
            return source.agent, _answer(case)


def _leaving(case: Case, place: Place) -> tuple[str, str] | None:
    stack = case.here.stack if case.here is not None else None
    if place is Place.WAY and stack is not None:
        if stack.route.kind == "local":
            return case.source.agent, f"{case.destination.address} is its own address"
        via = f" via {stack.route.via}" if stack.route.via else ""
        return case.source.agent, f"sends it on by {stack.route.link}{via}"
    return (case.source.agent, _answer(case)) if place is Place.BACK else None


def _interface(case: Case, *, is_source: bool) -> str:
    host = case.here if is_source else case.there
    attached = (host.source if is_source else host.destination) if host is not None else None
    inside = attached.inside if attached is not None else None
    return inside.link.name if inside is not None and inside.link is not None else "its interface"


def _between(case: Case) -> str:
    probe = case.probe
    carries = ", and full packets pass" if probe is not None and probe.carries_full else ""
    return f"reaches {case.destination.agent} ({case.destination.underlay}) on the underlay{carries}"


def _listening(case: Case) -> str:
    attached = case.there.destination if case.there is not None else None
    inside = attached.inside if attached is not None else None
    for one in (inside.listeners or ()) if inside is not None else ():
        if one.port == case.question.port and one.hears(ip_address(case.destination.address)):
            return f"{one.process or 'a program'} listens on {case.port}"
    return f"something listens on {case.port}"


def _answer(case: Case) -> str:
    if case.probe is None:
        return "no probe was sent"
    if case.probe.outcome == "answered":
        return f"the answer came after {case.probe.took_ms:g} ms"
    sent = "sent" if case.is_outside else "delivered"
    return f"{sent}; a UDP service need not answer" if case.question.protocol == "udp" else "no answer came"
