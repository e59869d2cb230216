"""The daemon behind `hedgerow agent --config FILE`."""

from __future__ import annotations

import logging
import time
from pathlib import Path

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def run(config: Path) -> None:
    """Until SIGTERM. Raises HedgerowError."""
    started_s = time.monotonic()
    logging.basicConfig(format=_FORMAT, level=logging.INFO)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # it would announce each socket that it serves
    import uvloop

    from hedgerow.agent import main
    from hedgerow.config import agent
    from hedgerow.wire.listen import held_sockets

    uvloop.run(main.run(agent.load(config), held_sockets(), started_s))
