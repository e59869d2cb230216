"""Conflists: one CNI network configuration a network, in the directory that Podman, containerd, CRI-O and Nomad read.

Ours: `95-hedgerow-*.conflist`. Missing (`podman network rm` deletes the file): written again within INTERVAL_S. Files
come by rename, since Podman looks at the directory's time and must never read half of one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING

from hedgerow.agent import desired
from hedgerow.model.network import NetworkName
from hedgerow.reconcile.plan import Key, Remove, Set, plan

if TYPE_CHECKING:
    from hedgerow.agent.state import State

log = logging.getLogger(__name__)

DIRECTORY = Path("/etc/cni/net.d")
MARK, ENDING = "95-hedgerow-", ".conflist"
CNI_VERSION = "1.0.0"
INTERVAL_S = 2.0


class Kind(IntEnum):
    CONFLIST = 1


def conflist(name: NetworkName) -> str:
    plugin = {"type": "hedgerow-cni", "capabilities": {"ips": True, "mac": True, "portMappings": True}}
    return json.dumps({"cniVersion": CNI_VERSION, "name": name, "plugins": [plugin]}, indent=2) + "\n"


async def keep(state: State, directory: Path = DIRECTORY) -> None:
    """A task. A directory that cannot be written is tried again, and said once."""
    said = ""
    while True:
        generation = state.generation
        try:
            write(state, directory)
            said = ""
        except OSError as error:
            if said != str(error):
                said = str(error)
                log.warning("conflists: %s", error)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(INTERVAL_S):
                await state.changed(generation)


def write(state: State, directory: Path) -> None:
    """Removes only what a controller said to be gone: a saved snapshot may be old."""
    if state.snapshot is None:
        return
    wanted = {Key(Kind.CONFLIST, row.name): conflist(row.name) for row in desired.networks(state.snapshot).values()}
    for step in plan(wanted, _read(directory), may_remove=state.is_live):
        for op in step.ops:
            path = directory / f"{MARK}{op.key.name}{ENDING}"
            match op:
                case Set(new=str(text)):
                    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
                    waiting = path.with_suffix(".new")
                    waiting.write_text(text)
                    waiting.rename(path)
                    log.info("+ %s", op.key)
                case Remove():
                    path.unlink(missing_ok=True)
                    log.info("- %s", op.key)


def _read(directory: Path) -> Mapping[Key, str]:
    return {
        Key(Kind.CONFLIST, path.name.removeprefix(MARK).removesuffix(ENDING)): path.read_text(errors="replace")
        for path in directory.glob(f"{MARK}*{ENDING}")
    }
