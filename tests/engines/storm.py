"""Engines at work while their node's agent is killed again and again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

from labkit import RunningLab, wait_for

AT_ONCE = 3


def survived(lab: RunningLab, node: str, run: Callable[[], object], *, runs: int = 8, kills: int = 5) -> None:
    """Every run succeeds, and there are at least so many of both. Kills come at random moments: of a call, between two,
    and one in four of the next agent's start. An agent that is ready has as long as it took to become so, at most: the
    same row of moments on a slow machine as on a fast one.
    """
    moment = random.Random(f"{node} {runs}")
    done, pause_s = 0, 0.5
    with ThreadPoolExecutor(AT_ONCE) as pool:
        running = {pool.submit(run) for _ in range(AT_ONCE)}
        while done < runs or kills > 0:
            ended, running = wait(running, timeout=moment.uniform(0, pause_s), return_when=FIRST_COMPLETED)
            for each in ended:
                each.result()
            done += len(ended)
            running |= {pool.submit(run) for _ in ended}
            before, killed_s = _ready(lab, node), time.monotonic()
            lab.kill(node, "agent")
            kills -= 1
            if moment.random() > 0.25:
                wait_for("the next agent", lambda before=before: _ready(lab, node) > before)
                pause_s = time.monotonic() - killed_s
        for each in running:
            each.result()


def _ready(lab: RunningLab, node: str) -> int:
    """How many agents of this node have been ready."""
    return lab.log(node, "agent").count(" ready after ")


def calls_waiting(lab: RunningLab, node: str) -> bool:
    """Whether there are connections to the agent's sockets that nobody has accepted (ss: Recv-Q of a listener)."""
    rows = lab.run(node, "ss", "-xlnH").splitlines()
    ours = [row.split() for row in rows if "/run/hedgerow/calls.sock" in row or "/run/hedgerow/agent.sock" in row]
    return any(int(row[2]) > 0 for row in ours)
