"""From an instance to the request that makes its container: Docker's form, and Podman's. Pure.

An app without an image runs on the host's root file system under an overlay that is thrown away with the container. It
runs as `nobody`, without capabilities, cannot gain any nor make namespaces, and all in which a host keeps secrets is
hidden: /run, /var, /tmp, /root and /home as a whole, in /etc what only root may read, the agent's own directories.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hedgerow.errors import Refused
from hedgerow.model.app import SANDBOX, Instance

INSTANCE_LABEL = "hedgerow.instance"
INCARNATION_LABEL = "hedgerow.incarnation"
NOBODY = "65534:65534"
LOG_BYTES = 10 << 20
MIN_MEMORY_BYTES = 32 << 20
"""Less, and a runtime cannot start; Mesos has the same floor."""

MAX_PIDS = 4096
"""Of one instance: more than servers need, and a fork bomb leaves the host its own."""

HIDDEN = (
    "/boot",
    "/home",
    "/lost+found",
    "/media",
    "/root",
    "/srv",
    "/sys/fs/bpf",
    "/sys/fs/cgroup",
    "/sys/kernel",
    *(
        f"/etc/{name}"
        for name in (
            ".pwd.lock",
            "NetworkManager",
            "cni",
            "containers",
            "crio",
            "docker",
            "gshadow",
            "gshadow-",
            "hedgerow",
            "ipsec.d",
            "ipsec.secrets",
            "kubernetes",
            "letsencrypt",
            "netplan",
            "openvpn",
            "pki/private",
            "rancher",
            "security/opasswd",
            "shadow",
            "shadow-",
            "ssh",
            "ssl/private",
            "sudoers",
            "sudoers.d",
            "wireguard",
        )
    ),
)
"""Files and directories of the host that an app without an image does not see. Those that are missing do no harm."""


def labels(instance: Instance) -> dict[str, str]:
    """How an agent without memory knows the container for its own; MESOS_TASK_ID is what tools look for."""
    return {
        INSTANCE_LABEL: str(instance.id),
        INCARNATION_LABEL: str(instance.incarnation),
        "MESOS_TASK_ID": str(instance.id),
    }


def shares(cpus: float) -> int:
    """CPU shares of the cgroup, 1024 for one CPU as Mesos and Docker have it; the kernel's least is 2."""
    return max(2, int(cpus * 1024))


def docker_body(instance: Instance, options: Mapping[str, str] = MappingProxyType({})) -> dict[str, Any]:
    """For POST /containers/create. A command takes the place of the image's entry point; arguments follow it.

    `options` are for our network driver, which dockerd hands them to.
    """
    launch = instance.launch
    command = launch.command or ()
    body: dict[str, Any] = {
        "Image": launch.image,
        "Env": [f"{name}={value}" for name, value in launch.environment],
        "Labels": labels(instance),
        "HostConfig": {
            "NetworkMode": launch.network or "none",
            "CpuShares": shares(launch.cpus),
            "Memory": max(MIN_MEMORY_BYTES, launch.memory_bytes),
            "PidsLimit": MAX_PIDS,
            "Tmpfs": {SANDBOX: "rw,exec,nosuid,nodev,mode=1777"},
            "LogConfig": {"Type": "json-file", "Config": {"max-size": str(LOG_BYTES), "max-file": "2"}},
        },
    }
    if launch.network and options:
        body["NetworkingConfig"] = {"EndpointsConfig": {launch.network: {"DriverOpts": dict(options)}}}
    if command:
        body |= {"Entrypoint": [command[0]], "Cmd": list(command[1:])}
    elif launch.arguments:
        body["Cmd"] = list(launch.arguments)
    if launch.user is not None:
        body["User"] = launch.user
    if launch.ports:
        body["ExposedPorts"] = {f"{port.container_port}/{port.protocol}": {} for port in launch.ports}
        bindings: dict[str, list[dict[str, str]]] = {}
        for port in launch.ports:
            at = bindings.setdefault(f"{port.container_port}/{port.protocol}", [])
            at.append({"HostIp": port.bind, "HostPort": str(port.host_port)})
        body["HostConfig"]["PortBindings"] = bindings
    return body


def podman_body(instance: Instance) -> dict[str, Any]:
    """For POST /libpod/containers/create, an instance with an image."""
    launch = instance.launch
    body = _podman_common(instance) | {"image": launch.image, "mounts": [_tmpfs(SANDBOX)]}
    if launch.command:
        body |= {"entrypoint": [launch.command[0]], "command": list(launch.command[1:])}
    elif launch.arguments:
        body["command"] = list(launch.arguments)
    if launch.user is not None:
        body["user"] = launch.user
    return body


def host_body(instance: Instance, hidden: Iterable[Path], seccomp: Path) -> dict[str, Any]:
    """The same for an instance without one. `seccomp` is its profile of system calls.

    Raises Refused for any user but nobody.
    """
    launch = instance.launch
    if launch.user not in (None, "nobody"):
        raise Refused(f"user {launch.user!r} may not run without an image", "leave user out, or give the app an image")
    empty = [_tmpfs("/var", "mode=755"), *(_tmpfs(each) for each in ("/run", "/tmp", "/var/tmp", SANDBOX))]
    return _podman_common(instance) | {
        "rootfs": "/",
        "rootfs_overlay": True,
        "command": list(launch.command or ()),
        "user": NOBODY,
        "work_dir": SANDBOX,
        "cap_drop": ["all"],
        "no_new_privileges": True,
        "seccomp_profile_path": str(seccomp),
        "mask": [*HIDDEN, *map(str, hidden)],
        "mounts": empty,
    }


def _podman_common(instance: Instance) -> dict[str, Any]:
    launch = instance.launch
    found: dict[str, Any] = {
        "name": str(instance.id),
        "env": dict(launch.environment),
        "labels": labels(instance),
        "resource_limits": {
            "cpu": {"shares": shares(launch.cpus)},
            "memory": {"limit": max(MIN_MEMORY_BYTES, launch.memory_bytes)},
            "pids": {"limit": MAX_PIDS},
        },
        "log_configuration": {"driver": "k8s-file", "size": LOG_BYTES},
        "netns": {"nsmode": "bridge" if launch.network else "none"},
    }
    if launch.network:
        found["networks"] = {launch.network: {}}
    if launch.ports:
        found["portmappings"] = [
            {
                "host_ip": port.bind,
                "host_port": port.host_port,
                "container_port": port.container_port,
                "protocol": port.protocol,
            }
            for port in launch.ports
        ]
    return found


def _tmpfs(place: str, mode: str = "mode=1777") -> dict[str, Any]:
    """Empty: without `notmpcopyup` runc fills it with what it hides."""
    options = ["nosuid", "nodev", "notmpcopyup", mode]
    return {"type": "tmpfs", "source": "tmpfs", "destination": place, "options": options}


def full_reference(image: str) -> str:
    """An image's name with its registry: a short one is Docker Hub's, for Podman as for Docker.

    >>> full_reference("nginx"), full_reference("me/app:1"), full_reference("quay.io/a/b")
    ('docker.io/library/nginx', 'docker.io/me/app:1', 'quay.io/a/b')
    """
    first, slash, _ = image.partition("/")
    if not slash:
        return f"docker.io/library/{image}"
    return image if "." in first or ":" in first or first == "localhost" else f"docker.io/{image}"
