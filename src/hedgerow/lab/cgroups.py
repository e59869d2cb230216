"""A control group of its own for every node, so that engines leave nothing in the machine's.

dockerd and Podman make groups at the root of every hierarchy and never remove the uppermost ones. A node therefore
lives in a group of its own and in a cgroup namespace whose root is that group; `down` removes the whole subtree.

Version 1: below the group of whoever runs `lab up`, hierarchy by hierarchy. Version 2: below the root, since a group
that has processes cannot hand controllers to groups below it (cgroups(7), "no internal processes").

Standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from dataclasses import dataclass
from pathlib import Path

from .syscalls import mount

ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted hierarchy: where, of which kind (`cgroup` or `cgroup2`), with which options, and our group in it."""

    place: Path
    kind: str
    options: str
    own: str


def _groups(pid: str) -> dict[str, str]:
    """Of a process: controllers (`cpu,cpuacct`, `name=systemd`, empty for version 2) to its group's path."""
    rows = (row.split(":", 2) for row in Path(f"/proc/{pid}/cgroup").read_text().splitlines())
    return {controllers: path for _, controllers, path in rows}


def hierarchies(mountinfo: str, groups: dict[str, str]) -> list[Hierarchy]:
    """All hierarchies below /sys/fs/cgroup that this process is in; proc(5) has the form of `mountinfo`.

    A mount that shows only a part of its hierarchy (a container's) counts if our own group lies within that part. Of
    mounts at one place the last is the one that is seen.
    """
    found: dict[Path, Hierarchy] = {}
    for row in mountinfo.splitlines():
        before, _, after = row.partition(" - ")
        kind, _, options = after.split(" ")[:3]
        root, place = before.split(" ")[3:5]
        if kind not in ("cgroup", "cgroup2") or not place.startswith(str(ROOT)):
            continue
        wanted = {word for word in options.split(",") if word not in ("rw", "ro") and "release" not in word}
        for controllers, path in groups.items():
            named = set(controllers.split(",")) if controllers else set()
            if (kind == "cgroup2") != (not controllers) or (named and not named <= wanted):
                continue
            inside = os.path.relpath(path, root) if path.startswith(root) else "."
            found[Path(place)] = Hierarchy(Path(place), kind, controllers, inside)
    return list(found.values())


def mounted() -> list[Hierarchy]:
    return hierarchies(Path("/proc/self/mountinfo").read_text(), _groups("self"))


def group_of(hierarchy: Hierarchy, lab: str) -> Path:
    """The lab's group in this hierarchy."""
    base = hierarchy.place if hierarchy.kind == "cgroup2" else hierarchy.place / hierarchy.own
    return base / f"hedgerow-lab-{lab}"


def _prepare(group: Path, parent: Path) -> None:
    """Makes a group that can hold processes, or hand on what its parent has."""
    group.mkdir(parents=True, exist_ok=True)
    for name in ("cpuset.cpus", "cpuset.mems"):
        file = group / name
        if file.exists() and not file.read_text().strip() and (parent / "cgroup.clone_children").exists():
            file.write_text((parent / name).read_text())


def _hand_on(group: Path) -> None:
    """Version 2: lets groups below have every controller that this one has. What it cannot hand on stays off."""
    for controller in (group / "cgroup.controllers").read_text().split():
        with contextlib.suppress(OSError):
            (group / "cgroup.subtree_control").write_text(f"+{controller}")


def enter(lab: str, node: str) -> None:
    """Makes the node's groups and moves this process into them. Raises OSError when they cannot be written."""
    for hierarchy in mounted():
        whole = group_of(hierarchy, lab)
        _prepare(whole, whole.parent)
        own = whole / node
        if hierarchy.kind == "cgroup2":
            for above in (whole.parent, whole):
                _hand_on(above)
        _prepare(own, whole)
        (own / "cgroup.procs").write_text("0")


def groups_of(pid: int) -> list[Path]:
    """The groups that a process is in, one in each hierarchy: what else enters its node has to go there too."""
    found = hierarchies(Path("/proc/self/mountinfo").read_text(), _groups(str(pid)))
    return [hierarchy.place / hierarchy.own for hierarchy in found]


def mount_own() -> None:
    """In the node's new cgroup namespace: mounts every hierarchy anew, so that the node's group is its root."""
    found = mounted()
    if found and found[0].place == ROOT:
        mount("cgroup2", str(ROOT), "cgroup2")
        inner = ROOT / "init"
        inner.mkdir(exist_ok=True)
        (inner / "cgroup.procs").write_text("0")
        _hand_on(ROOT)
        return
    mount("tmpfs", str(ROOT), "tmpfs", options="mode=755")
    for hierarchy in found:
        hierarchy.place.mkdir(exist_ok=True)
        named = hierarchy.options.startswith("name=")
        options = f"none,{hierarchy.options}" if named else hierarchy.options
        mount("cgroup", str(hierarchy.place), hierarchy.kind, options=options)


def remove(groups: list[Path], *, within_s: float = 10) -> list[Path]:
    """Removes the lab's groups, innermost first; waits for processes that are still ending. Returns those that stay."""
    end = time.monotonic() + within_s
    left = [group for group in groups if group.exists()]
    while left:
        left = [group for group in left if not _removed(group)]
        if time.monotonic() > end:
            break
        if left:
            time.sleep(0.02)
    return left


def _removed(group: Path) -> bool:
    for directory, _, _ in os.walk(group, topdown=False):
        try:
            Path(directory).rmdir()
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno in (errno.EBUSY, errno.ENOTEMPTY):
                return False
            raise
    return True
