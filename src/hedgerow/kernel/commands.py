"""Programs that change rules for us, one run at a time each: nft and iptables.

Their process ids are kept for a while, since the kernel names whoever changed a rule by that.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections import deque
from collections.abc import Sequence
from subprocess import PIPE

from hedgerow.errors import HedgerowError

TIMEOUT_S = 10.0
_own: deque[int] = deque(maxlen=64)


def run(command: Sequence[str], text: str = "", *, cure: str) -> str:
    """What it printed. `cure` is for the case that there is no such program. Raises HedgerowError with its words."""
    words = shlex.join(command)
    try:
        with subprocess.Popen(command, text=True, stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:
            _own.append(process.pid)
            try:
                out, err = process.communicate(text, TIMEOUT_S)
            except subprocess.TimeoutExpired as error:
                process.kill()
                raise HedgerowError(f"{words} did not answer within {TIMEOUT_S:g} s") from error
    except FileNotFoundError as error:
        raise HedgerowError(f"there is no {command[0]} on the PATH", cure) from error
    if process.returncode:
        raise HedgerowError(f"{words}: {err.strip()}")
    return out


def is_own(pid: int) -> bool:
    """Whether it is of a program that was run here not long ago, or of this process."""
    return pid in _own or pid == os.getpid()
