"""The verdict: which of all that is wrong stops this flow. Pure.

The probe decides whether anything does: what looks wrong and lets it pass is no cause (but for what a small packet
cannot show: a path too narrow for large ones, a program that does not read). When it is stopped, its trace says how far
it came, and the first problem from there on is the cause. Without one, the trace itself says what happened.
"""

from __future__ import annotations

from collections.abc import Iterator

from . import outside
from .case import Answer, Case, Place, Problem, Stage
from .checks import problems, wrong_neighbour
from .facts import Step
from .words import REASONS, place_words

_SENT = ("wire", "device")


def judge(case: Case) -> Answer:
    found = [*outside.problems(case)] if case.is_outside else [*problems(case), *_between(case)]
    found.sort(key=lambda problem: problem.place)
    works = answered(case)
    if works:
        cause = next((one for one in [*_open_wall(case), *found] if one.lasting), None)
    else:
        far = reached(case)
        after = [one for one in found if one.place >= far]
        cause = after[0] if after else told_by_trace(case, far)
    return Answer(
        works=works and cause is None,
        stages=tuple(_stages(case, cause)),
        cause=cause,
        notes=tuple(f"{one.cause}, and it passes" for one in found if works and one is not cause and not one.by_policy),
    )


def answered(case: Case) -> bool:
    """A UDP service need not answer: there it is enough that the datagram was delivered."""
    probe = case.probe
    if probe is None:
        return False
    if case.question.protocol == "udp" and probe.outcome == "silent":
        if case.is_outside:
            return any(step.stage == "host" for step in probe.steps) and not list(outside.problems(case))
        delivered = any(step.stage == "delivered" and not step.back for step in _at_receiver(case))
        return delivered and not any(one.place in (Place.INSIDE, Place.PORT) for one in problems(case))
    return probe.outcome == "answered"


def _refused(case: Case) -> bool:
    return case.probe is not None and case.probe.outcome == "refused"


def _at_receiver(case: Case) -> tuple[Step, ...]:
    return (case.probe.steps if case.probe else ()) if case.is_local else case.arrived


def reached(case: Case) -> Place:
    """The first place at which the probe can have been stopped: it came past all before."""
    there, here = _at_receiver(case), case.probe.steps if case.probe else ()
    if any(step.back for step in there):  # a refusal is an answer, too: of the destination's own kernel
        return Place.INSIDE if _refused(case) else Place.BACK
    if any(step.stage == "delivered" for step in there):
        return Place.RECEIVER
    if any(step.stage == "host" and not step.back for step in here):
        return Place.WAY
    if not case.is_local and there:
        return Place.ARRIVAL
    if any(step.stage in _SENT for step in here):  # to some host: to the right one is for the facts to say
        return Place.WAY
    return Place.LINK if here else Place.SENDER


def _between(case: Case) -> Iterator[Problem]:
    """What only both hosts together show."""
    here, there, probe = case.here, case.there, case.probe
    if case.is_local or here is None:
        return
    if there is None and probe is not None and probe.reaches_host is False:
        yield _lost(case, case.source.agent, case.destination.agent, Place.UNDERLAY)
    if there is not None:
        yield from wrong_neighbour(here, there, case.destination)
        if here.settings and there.settings and here.settings.port != there.settings.port:
            yield Problem(
                place=Place.UNDERLAY,
                cause=f"{here.agent} sends tunnels to port {here.settings.port}, {there.agent} takes them on"
                f" {there.settings.port}",
                thing="vxlan_port of both agents",
                change="give every agent.yaml the same vxlan_port, and start the agents again",
            )
    if probe is not None and probe.reaches_host and probe.carries_full is False and here.settings is not None:
        inner = here.settings.inner_mtu_bytes
        yield Problem(
            place=Place.UNDERLAY,
            cause=f"from {case.source.agent} to {case.destination.agent} large packets are lost: a tunnel packet of"
            f" {inner + 50} bytes does not come back, a small one does",
            thing=f"underlay between {case.source.agent} and {case.destination.agent}",
            change=f"raise the MTU on that path to {inner + 50}, or set vtep_mtu in config.yaml below {inner}",
            lasting=True,
        )


def _open_wall(case: Case) -> Iterator[Problem]:
    if not case.policy.allowed:
        agent = case.source.agent
        yield Problem(
            place=Place.WALL,
            cause=f"it passes although config.yaml refuses it: {case.policy.reason}",
            thing=f"map allowed of {agent}",
            change=f"see whether {agent} has applied the newest revision: hedgerow agent show {agent}",
            line=case.policy.line,
            lasting=True,
        )


def told_by_trace(case: Case, far: Place) -> Problem:
    """Nothing looks wrong, and yet there was no answer: the last that was seen of the packet, or of the answer."""
    here, there = (case.probe.steps if case.probe else ()), _at_receiver(case)
    for host, steps in ((case.source.agent, here), (case.destination.agent, there)):
        dropped = next((step for step in steps if step.reason), None)
        if dropped is not None:
            return _dropped(case, host, dropped, far)
    match far:
        case Place.SENDER:
            return _own_firewall(case, Place.SENDER)
        case Place.LINK:
            return _unseen(case, Place.LINK, f"{case.source.agent} took the packet and did not say what became of it")
        case Place.WAY if case.is_outside:
            return outside.unanswered(case)
        case Place.WAY:
            return _lost(case, case.source.agent, case.destination.agent, Place.UNDERLAY)
        case Place.ARRIVAL:
            return _unseen(case, Place.ARRIVAL, f"{case.destination.agent} took the packet and did not deliver it")
        case Place.BACK:
            return _answer_lost(case, here)
        case _:
            return _own_firewall(case, Place.INSIDE)


def _dropped(case: Case, host: str, step: Step, far: Place) -> Problem:
    words, change = REASONS.get(step.reason, (f"reason {step.reason}", ""))
    place = Place.BACK if step.back else max(far, Place.WALL if host == case.source.agent else far)
    what = "the answer" if step.back else "the packet"
    return Problem(
        place=place,
        cause=f"{host} drops {what} ({step.reason}): {words}",
        thing=f"program {step.program} on {host}",
        change=change or "docs/reference/drop-reasons.md says what it means",
    )


def _unseen(case: Case, place: Place, cause: str) -> Problem:
    agent = case.source.agent if place is Place.LINK else case.destination.agent
    return Problem(
        place=place,
        cause=cause,
        thing=f"data path of {agent}",
        change=f"ask again; if it stays: hedgerow drops --since 1m --agent {agent}",
    )


def _own_firewall(case: Case, place: Place) -> Problem:
    """The packet left no trace outside the container, or none after it was delivered into it."""
    is_sender = place is Place.SENDER
    end, host = (case.source, case.here) if is_sender else (case.destination, case.there)
    attached = (host.source if is_sender else host.destination) if host is not None else None
    chains = attached.inside.firewall if attached is not None and attached.inside is not None else ()
    came = "which refuses it" if _refused(case) else "and no answer comes"
    told = f"{end.called} does not let the packet out" if is_sender else f"the packet comes to {end.called}, {came}"
    why = f"its own firewall drops it ({chains[0]})" if chains else "something inside drops it"
    place_of = attached.inside.place if attached is not None and attached.inside is not None else ""
    return Problem(
        place=place,
        cause=f"{told}: {why}",
        thing=f"firewall inside {end.called}",
        change=f"on {end.agent}: nsenter --net={place_of} nft list ruleset",
    )


def _lost(case: Case, sender: str, receiver: str, place: Place) -> Problem:
    """Sent by one host and never seen by the other."""
    port = case.here.settings.port if case.here is not None and case.here.settings is not None else 64000
    probe = case.probe
    if probe is not None and probe.reaches_host is False:
        return Problem(
            place=place,
            cause=f"{sender} does not reach {receiver} on the underlay: neither tunnel packets nor pings come through",
            thing=f"underlay between {sender} and {receiver}",
            change=f"see to the network between the hosts: ping {_other(case, receiver)}",
        )
    return Problem(
        place=place,
        cause=f"UDP port {port} from {sender} to {receiver} is blocked: {sender} sends, and nothing arrives, while"
        f" pings do{_suspects(case, sender, receiver)}",
        thing=f"underlay between {sender} and {receiver}",
        change=f"let UDP {port} through from {sender} to {receiver}, in every firewall between them and on both",
    )


def _suspects(case: Case, sender: str, receiver: str) -> str:
    """Chains of the hosts' own firewalls that drop something on the way out or in."""
    hosts = {case.source.agent: case.here, case.destination.agent: case.there}
    found = [
        f"{name}: {host.underlay.chains[0]}"
        for name in (sender, receiver)
        if (host := hosts[name]) and host.underlay.chains
    ]
    return f" ({'; '.join(found)})" if found else ""


def _other(case: Case, agent: str) -> str:
    return case.source.underlay if agent == case.source.agent else case.destination.underlay


def _answer_lost(case: Case, here: tuple[Step, ...]) -> Problem:
    if not case.is_local and not any(step.back for step in here):
        return _lost(case, case.destination.agent, case.source.agent, Place.BACK)
    return _own_firewall(case, Place.SENDER)


def _stages(case: Case, cause: Problem | None) -> Iterator[Stage]:
    """All places that this flow comes by; what lies behind the stop was not reached."""
    for place in Place:
        words = place_words(case, place)
        if words is None:
            continue
        where, what = words
        state = "ok" if cause is None or place < cause.place else "none"
        if cause is not None and place == cause.place:
            state, what = "stop", cause.cause
        yield Stage(place=place, state=state, where=where, what=what)
