"""A node's view of the file system: the machine's, with everything that an engine or an agent writes made private.

Paths that exist on every machine (/etc, /opt, /var/lib) become overlays with their upper half in memory, so that no
mount point is ever made on the machine itself; engines' data lies in the node's directory on disk, since overlayfs does
not stack on itself for writing. With the last process of the node all of this is gone. Standard library only.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from . import cgroups
from .syscalls import Mount, bind, mount
from .topology import LAB_RUN, RUN, Node

LAYERED = ("/etc", "/opt", "/var/lib")
FRESH = ("/etc/docker", "/etc/containers", "/etc/cni", "/etc/hedgerow", "/opt/cni", "/dev/shm")
STATE = LAB_RUN / "state"
"""Where a node sees its own directory of the machine."""

NAMESERVER = "nameserver 169.254.1.1\n"


def make_private(node: Node, directory: Path) -> None:
    """In new mount, PID and cgroup namespaces: builds the node's view. Raises OSError naming what failed."""
    mount("none", "/", flags=Mount.PRIVATE | Mount.RECURSIVE)
    mount("proc", "/proc", "proc", flags=Mount.NOSUID | Mount.NODEV | Mount.NOEXEC)
    _kernel_settings()
    state = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    outside = {path: os.open(source, os.O_RDONLY) for path, source in node.copies.items()}
    mount("tmpfs", "/run", "tmpfs", flags=Mount.NOSUID | Mount.NODEV, options="mode=755")
    for name in ("bin", "pids", "hold", "home", "tmp", "state"):
        (LAB_RUN / name).mkdir(parents=True)
    Path("/run/podman").mkdir()
    Path("/run/lock").mkdir()
    bind(f"/proc/self/fd/{state}", str(STATE))
    os.close(state)
    for place in LAYERED:
        _layer(place)
    for place in FRESH:
        Path(place).mkdir(parents=True, exist_ok=True)
        mount("tmpfs", place, "tmpfs", options="mode=700" if place == "/etc/hedgerow" else "mode=755")
    for name in node.own:
        (STATE / name).mkdir(exist_ok=True)
        Path("/var/lib", name).mkdir(exist_ok=True)
        bind(str(STATE / name), f"/var/lib/{name}")
    RUN.mkdir(mode=0o700)
    (RUN / "bpf").mkdir()
    mount("bpf", str(RUN / "bpf"), "bpf")
    _files(node, outside)


def _kernel_settings() -> None:
    """/sys of this network namespace, own control groups; settings of the machine cannot be changed from here."""
    mount("sysfs", "/sys", "sysfs", flags=Mount.NOSUID | Mount.NODEV | Mount.NOEXEC)
    cgroups.mount_own()
    bind("/proc/sys", "/proc/sys", read_only=True)
    bind("/proc/sys/net", "/proc/sys/net", read_only=False)
    if Path("/lib/modules").is_dir():
        # dockerd loads br_netfilter by itself, which would send packets of the machine's bridges through its firewall.
        mount("tmpfs", "/lib/modules", "tmpfs", flags=Mount.READ_ONLY)


def _layer(place: str) -> None:
    halves = LAB_RUN / "layers" / place.strip("/").replace("/", "-")
    (halves / "upper").mkdir(parents=True)
    (halves / "work").mkdir()
    kept = Path(place).stat()
    options = f"lowerdir={place},upperdir={halves / 'upper'},workdir={halves / 'work'}"
    mount("overlay", place, "overlay", options=options)
    Path(place).chmod(stat.S_IMODE(kept.st_mode))


def _files(node: Node, outside: dict[str, int]) -> None:
    hosts = f"127.0.0.1 localhost\n{node.address} {node.name}\n"
    texts = node.texts | {"/etc/resolv.conf": NAMESERVER, "/etc/hostname": f"{node.name}\n", "/etc/hosts": hosts}
    for path, text in texts.items():
        file = _new(path)
        file.write_text(text)
        if path.startswith("/etc/hedgerow/"):
            file.chmod(0o600)
    for path, descriptor in outside.items():
        with os.fdopen(descriptor, "rb") as source, _new(path).open("wb") as target:
            shutil.copyfileobj(source, target)
            os.fchmod(target.fileno(), stat.S_IMODE(os.fstat(source.fileno()).st_mode))


def _new(path: str) -> Path:
    """A path where nothing is; never writes through a link that the machine has there."""
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    return file
