"""A case: what was asked, who the two ends are, what config.yaml says, and all that was seen. And what comes of it.

Pure records. A `Problem` is a finding at one place of the path; whether it is *the* cause is for `judge` to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from .facts import HostFacts, Probe, Question, Step


class Place(IntEnum):
    """Where on the path, in the order in which a packet comes by."""

    SENDER = 1
    LINK = 2
    WALL = 3
    WAY = 4
    UNDERLAY = 5
    ARRIVAL = 6
    RECEIVER = 7
    INSIDE = 8
    PORT = 9
    BACK = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """`called` is how people know it. An end that is no endpoint has only an address, and perhaps a network."""

    called: str
    address: str
    network: str = ""
    vni: int = 0
    agent: str = ""
    underlay: str = ""
    mac: str = ""


@dataclass(frozen=True, slots=True)
class Policy:
    """What config.yaml says of the flow. `where` names the place in it, as `db.rules[1]`, and `line` its line, 0 when
    the file does not have it any more; `change` is what would turn a refusal into the opposite.
    """

    allowed: bool
    reason: str
    where: str = ""
    line: int = 0
    change: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """`here` and `there` are what the hosts of source and destination say, the same where both are on one; None: it did
    not answer, and `silent` has the reason by agent. `arrived` are the steps seen on the destination's host.
    """

    question: Question
    source: End
    destination: End
    policy: Policy
    here: HostFacts | None = None
    there: HostFacts | None = None
    probe: Probe | None = None
    arrived: tuple[Step, ...] = ()
    silent: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_outside(self) -> bool:
        """The destination is no endpoint: a host, or outside the cluster. Then `there` is None."""
        return not self.destination.agent

    @property
    def is_local(self) -> bool:
        """Both ends are on one host."""
        return self.source.agent == self.destination.agent

    @property
    def port(self) -> str:
        """`5432/tcp`, or `ping`."""
        return "ping" if self.question.protocol == "icmp" else f"{self.question.port}/{self.question.protocol}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """`thing` is the object that has it, `change` what would put it right. `lasting`: it is one although the probe was
    answered. `by_policy`: nothing is broken, config.yaml refuses it.
    """

    place: Place
    cause: str
    thing: str
    change: str
    line: int = 0
    lasting: bool = False
    by_policy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """`state`: ok, stop, or none for what lies behind the stop."""

    place: Place
    state: str
    where: str
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`works`: the probe was answered and nothing lasting is wrong. `cause` is None exactly then."""

    works: bool
    stages: tuple[Stage, ...]
    cause: Problem | None
    notes: tuple[str, ...] = ()
