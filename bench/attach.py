"""What attaching a container costs the agent: CNI ADDs through the real shim, by the times that the agent logs itself.

The agent makes one durable record for each (the address's). How long the disk takes for that is measured apart, with
the same settings on the same file system.
"""

from __future__ import annotations

import json
import re
import sqlite3
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from bench.cluster import Cluster
from hedgerow.lab import enter
from hedgerow.lab.topology import STATE

COUNT = 100
NODE = "n1"
SHIM = "/opt/cni/bin/hedgerow-cni"
CALLS = """
call() {
	CNI_COMMAND=$1 CNI_CONTAINERID=bench-$2 CNI_NETNS=/run/netns/bench-$2 CNI_IFNAME=eth0 CNI_PATH=/opt/cni/bin \\
		%(shim)s <<'CONF'
%(conf)s
CONF
}
set -e
for i in $(seq %(count)d); do ip netns add bench-$i; done
for i in $(seq %(count)d); do call ADD $i; done
for i in $(seq %(count)d); do call DEL $i; ip netns del bench-$i; done
"""


def times(cluster: Cluster, network: str) -> dict[str, float]:
    """Medians in milliseconds: the whole ADD, each step of the attach in it, and a durable record."""
    log = STATE / cluster.record.name / NODE / "logs" / "agent.log"
    seen = len(log.read_text())
    conf = json.dumps({"cniVersion": "1.0.0", "name": network, "type": "hedgerow-cni", "network": network})
    script = CALLS % {"shim": SHIM, "conf": conf, "count": COUNT}
    done = enter.run(cluster.pids[NODE], "sh", "-c", script, timeout_s=300)
    if done.returncode:
        raise RuntimeError(f"CNI calls failed: {done.stdout[-1000:]}{done.stderr[-1000:]}")
    found = from_log(log.read_text()[seen:])
    return found | {"fsync": durable_record(log.parent.parent)}


def from_log(text: str) -> dict[str, float]:
    """`ADD bench-1 eth0 3.1 ms`: a whole call; `attached cni/bench-1/eth0 9.0.0.2 in 2 ms: wait 0.1, ...`: a part."""
    laps: dict[str, list[float]] = defaultdict(list)
    for took in re.findall(r"ADD bench-\d+ eth0 ([\d.]+) ms", text):
        laps["ADD"].append(float(took))
    for took, steps in re.findall(r"attached cni/bench-\S+ \S+ in ([\d.]+) ms: (.*)", text):
        laps["attach"].append(float(took))
        for step in steps.split(", "):
            name, _, value = step.rpartition(" ")
            laps[f"  {name}"].append(float(value))
    return {name: statistics.median(values) for name, values in laps.items()}


def durable_record(directory: Path) -> float:
    """What SQLite takes to commit one small row durably (WAL, FULL) in this directory, in milliseconds."""
    with tempfile.TemporaryDirectory(dir=directory) as place:
        database = sqlite3.connect(Path(place, "probe"), isolation_level=None)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("CREATE TABLE row (address TEXT)")
        laps = []
        for number in range(COUNT):
            began = time.perf_counter()
            database.execute("INSERT INTO row VALUES (?)", (f"9.0.0.{number}",))
            laps.append((time.perf_counter() - began) * 1e3)
        database.close()
    return statistics.median(laps)
