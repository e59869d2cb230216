"""The system calls of an app that runs on the host's files: Podman's own profile, without what makes namespaces,
mounts, or reaches into the kernel. Pure but for `write_profile`.

Podman lets every container make user namespaces, since containers inside containers need them. In one, a process is
root over much kernel code that it could never reach otherwise. Taken from the profile that Podman installs, so that a
system call that is new to us is refused, and one that is new to the C library is allowed when Podman allows it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hedgerow.errors import Refused

INSTALLED = Path("/usr/share/containers/seccomp.json")
FORBIDDEN = frozenset(
    (
        "add_key",
        "bpf",
        "clone",
        "clone3",
        "fanotify_init",
        "fsconfig",
        "fsmount",
        "fsopen",
        "fspick",
        "io_uring_enter",
        "io_uring_register",
        "io_uring_setup",
        "keyctl",
        "mount",
        "mount_setattr",
        "move_mount",
        "name_to_handle_at",
        "open_by_handle_at",
        "open_tree",
        "perf_event_open",
        "pivot_root",
        "process_vm_readv",
        "process_vm_writev",
        "quotactl",
        "request_key",
        "setns",
        "umount",
        "umount2",
        "unshare",
        "userfaultfd",
    )
)
NEW_NAMESPACES = 0x7E020000
"""CLONE_NEW* of clone(2), all of them; CLONE_NEWTIME only exists in clone3."""

ENOSYS = 38
"""What the C library takes as "there is no clone3", and uses clone instead, whose flags can be looked at."""

ALLOW, ERRNO = "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"


def tightened(profile: dict[str, Any]) -> dict[str, Any]:
    """The same profile with FORBIDDEN allowed nowhere, but clone without new namespaces."""
    rules = [
        rule | {"names": [name for name in rule["names"] if name not in FORBIDDEN]} for rule in profile["syscalls"]
    ]
    s390 = ["s390", "s390x"]
    added = [
        _clone(flags_at=0) | {"excludes": {"arches": s390}},
        _clone(flags_at=1) | {"includes": {"arches": s390}},
        {"names": ["clone3"], "action": ERRNO, "args": [], "errnoRet": ENOSYS, "errno": "ENOSYS"},
    ]
    return profile | {"syscalls": [rule for rule in rules if rule["names"]] + added}


def _clone(flags_at: int) -> dict[str, Any]:
    condition = {"index": flags_at, "value": NEW_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
    return {"names": ["clone"], "action": ALLOW, "args": [condition]}


def write_profile(directory: Path) -> Path:
    """Writes it below the agent's directory, for Podman to read. Raises Refused when Podman installed none."""
    try:
        profile = json.loads(INSTALLED.read_text())
    except (OSError, ValueError) as error:
        cure = "install Podman's own containers-common, or give the app an image"
        raise Refused(f"an app without an image needs the profile {INSTALLED}: {error}", cure) from error
    place = directory / "seccomp.json"
    draft = place.with_suffix(".new")
    draft.write_text(json.dumps(tightened(profile)))
    return draft.replace(place)
