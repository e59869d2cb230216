"""What is wrong on the way out: to a host, or to an address outside the cluster. Pure.

The data path hands what may leave to the host's own stack. From there on it is the host's forwarding, its routes and
its firewalls, our table among them; what lies behind the host cannot be looked at.
"""

from __future__ import annotations

from collections.abc import Iterator

from .case import Case, Place, Problem
from .checks import no_agent, refused, sender
from .facts import HostFacts, Stack


def problems(case: Case) -> Iterator[Problem]:
    """In the order of the path."""
    if case.here is None:
        yield no_agent(case, case.source, Place.SENDER)
        return
    yield from sender(case, case.here)
    if not case.policy.allowed:
        yield refused(case)
    if case.here.stack is not None:
        yield from _stack(case, case.here, case.here.stack)


def _stack(case: Case, here: HostFacts, stack: Stack) -> Iterator[Problem]:
    to, on = case.destination.address, f"on {here.agent}"
    if stack.route.kind == "local":
        return
    if stack.forwarding_off:
        name = f"net/{stack.forwarding_off}"
        cause, change = f"{here.agent} does not forward ({name} is off)", f"{on}: sysctl -w {name}=1"
        yield Problem(place=Place.WAY, cause=cause, thing=f"{name} of {here.agent}", change=change)
    if stack.route.kind != "unicast":
        told = "has no route" if stack.route.kind == "none" else f"has a route that is {stack.route.kind}"
        change = f"{on}: ip route get {to}"
        cause = f"{here.agent} {told} to {to}"
        yield Problem(place=Place.WAY, cause=cause, thing=f"routes of {here.agent}", change=change)
    if not stack.has_table:
        cause = f"the firewall table of {here.agent} is gone: what leaves is not masqueraded"
        change = f"its agent puts it back within seconds; if it stays: hedgerow agent show {here.agent}"
        yield Problem(place=Place.WAY, cause=cause, thing=f"table inet hedgerow of {here.agent}", change=change)


def unanswered(case: Case) -> Problem:
    """The host's stack took the packet, nothing looks wrong, and no answer came, or a refusal did."""
    agent, to = case.source.agent, case.destination.address
    stack = case.here.stack if case.here is not None else None
    chains = f"; on {agent} something is dropped by {stack.chains[0]}" if stack is not None and stack.chains else ""
    is_refused = case.probe is not None and case.probe.outcome == "refused"
    what = f"{to} refuses {case.port}, or a firewall on the way does" if is_refused else f"no answer comes from {to}"
    return Problem(
        place=Place.BACK,
        cause=f"{agent} sends it on, and {what}{chains}",
        thing=f"{to}, or the way to it from {agent}",
        change=f"try it from the host: on {agent}, the same call to {to}",
    )
