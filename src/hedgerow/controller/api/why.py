"""Why: asks the hosts of both ends, sends a probe from one to the other, and lets `hedgerow.why` judge what comes back.

All at once, since what is wrong may be mended meanwhile: both hosts look while the probe is under way. An agent that
does not answer costs its time limit and is named; the rest is judged without it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import TypeVar

from hedgerow.errors import HedgerowError, Unreachable
from hedgerow.model.agent import AgentId
from hedgerow.why.case import Answer, Case
from hedgerow.why.facts import HostFacts, Probe, Question, Step
from hedgerow.why.judge import judge
from hedgerow.wire.codec import from_json

from . import names
from .asked import Asked, make_case
from .view import View

log = logging.getLogger(__name__)

T = TypeVar("T")

ANSWER_S = 2.0
READY_S = 0.5
"""For the destination's host to be ready to follow the probe; without it the probe goes all the same."""
GRACE_S = 0.05
MAX_ANSWER_BYTES = 1 << 20
MAX_STEPS = 1000


@dataclass(slots=True)
class _Heard:
    """What the agents said, and why one did not."""

    silent: dict[str, str] = field(default_factory=dict)
    arrived: list[Step] = field(default_factory=list)
    ready: asyncio.Event = field(default_factory=asyncio.Event)


class Why:
    def __init__(self, view: View) -> None:
        self._view = view

    async def ask(self, asked: Asked) -> tuple[Case, Answer]:
        """Raises NotFound for who is nobody, BadInput for two that share no IP version."""
        known = await names.read(self._view.store, self._view.watch)
        case = await self._heard(make_case(self._view, known, asked))
        return case, judge(case)

    async def _heard(self, case: Case) -> Case:
        heard, agents = _Heard(), self._view.watch.agents
        by_name = {agent.name: id for id, agent in agents.items()}
        alone = case.is_local or case.is_outside
        ids = by_name[case.source.agent], by_name[case.source.agent if alone else case.destination.agent]
        toward = case.question
        returning = Question(**{**asdict(toward), "peer": case.source.underlay})
        async with asyncio.TaskGroup() as group:
            here = group.create_task(self._facts(ids[0], toward, heard), name="facts of the source's host")
            there = here
            if not alone:
                there = group.create_task(self._facts(ids[1], returning, heard), name="facts of the other host")
            probe = group.create_task(self._probe(ids, case, heard), name="probe")
        return Case(
            question=case.question,
            source=case.source,
            destination=case.destination,
            policy=case.policy,
            here=here.result(),
            there=None if case.is_outside else there.result(),
            probe=probe.result(),
            arrived=tuple(heard.arrived),
            silent=heard.silent,
        )

    async def _facts(self, agent: AgentId, question: Question, heard: _Heard) -> HostFacts | None:
        return await self._one(agent, "why.look", question, HostFacts, heard)

    async def _probe(self, ids: tuple[AgentId, AgentId], case: Case, heard: _Heard) -> Probe | None:
        if ids[0] == ids[1]:
            return await self._one(ids[0], "why.probe", case.question, Probe, heard)
        async with self._watched(ids[1], case, heard):
            found = await self._one(ids[0], "why.probe", case.question, Probe, heard)
            await asyncio.sleep(GRACE_S)
        return found

    @asynccontextmanager
    async def _watched(self, agent: AgentId, case: Case, heard: _Heard) -> AsyncIterator[None]:
        """Within the block the destination's host follows the probe."""
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(self._watch(agent, case, heard), name="the probe's arrival")
            try:
                async with asyncio.timeout(READY_S):
                    await heard.ready.wait()
            except TimeoutError:
                log.debug("%s is not ready to follow the probe", case.destination.agent)
            try:
                yield
            finally:
                watching.cancel()

    async def _watch(self, agent: AgentId, case: Case, heard: _Heard) -> None:
        rest = b""
        try:
            call = self._view.sessions.call(agent, "why.watch", asdict(case.question), ANSWER_S)
            async with aclosing(call) as pieces:
                async for piece in pieces:
                    *lines, rest = (rest + piece).split(b"\n")
                    heard.ready.set()
                    heard.arrived += [from_json(line, Step) for line in lines if line]
                    if len(rest) > MAX_ANSWER_BYTES or len(heard.arrived) > MAX_STEPS:
                        return
        except HedgerowError as error:
            heard.silent.setdefault(case.destination.agent, str(error))
        finally:
            heard.ready.set()

    async def _one(self, agent: AgentId, method: str, question: Question, kind: type[T], heard: _Heard) -> T | None:
        """None for an agent that does not answer, or answers what is none."""
        name, answer = self._view.watch.agents[agent].name, bytearray()
        try:
            async with aclosing(self._view.sessions.call(agent, method, asdict(question), ANSWER_S)) as pieces:
                async for piece in pieces:
                    answer += piece
                    if len(answer) > MAX_ANSWER_BYTES:
                        raise Unreachable(f"{name} answered {method} with more than {MAX_ANSWER_BYTES} bytes")
            return from_json(bytes(answer), kind)
        except HedgerowError as error:
            heard.silent[name] = error.message
            return None
