"""What each member of a lab gets: files, sockets, processes. Pure: built here, carried out by the supervisor."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from .topology import AGENTS_PORT, CONTROLLER, LAB_RUN, OUTSIDE_SERVICE, RUN, Child, Lab, Node, address_of

ETC = Path("/etc/hedgerow")
KEYS = ETC / "certificates"

CONTAINERS_CONF = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
default_capabilities = [
  "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "NET_RAW",
  "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_backend = "cni"
cni_plugin_dirs = ["/opt/cni/bin", "/usr/lib/cni"]
"""
"""Nothing of systemd: a node has none. Low ulimits, since a machine's hard limits may be below Podman's defaults. Its
default capabilities and NET_RAW, which Docker grants too: without it there is no ping.
"""

STORAGE_CONF = """\
[storage]
driver = "overlay"
graphroot = "/var/lib/containers/storage"
runroot = "/run/containers/storage"
"""
POLICY = {"default": [{"type": "insecureAcceptAnything"}]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """Where the machine has what a node runs. `docker` is the client that belongs to `dockerd`."""

    hedgerow: tuple[str, ...]
    outside: tuple[str, ...]
    dockerd: str
    docker: str
    podman: str
    relay: Path
    shim: Path


def members(lab: Lab, programs: Programs, config: str, token: str) -> list[Node]:
    """All nodes of a lab, `lan` first."""
    keys = lab.directory / "certificates"
    return [
        _lan(programs),
        _controller(programs, keys, config, token),
        *(_node(lab, name, programs, keys) for name in lab.node_names),
    ]


def _lan(programs: Programs) -> Node:
    service = Child("outside", (*programs.outside, str(OUTSIDE_SERVICE)))
    return Node(name="lan", address=address_of("lan"), children=(service,))


def _keys(directory: Path, stem: str) -> dict[str, str]:
    return {str(KEYS / name): str(directory / name) for name in ("ca.pem", f"{stem}.pem", f"{stem}.key")}


def _controller(programs: Programs, keys: Path, config: str, token: str) -> Node:
    command = (
        *programs.hedgerow,
        *("controller", "--config", str(ETC / "config.yaml")),
        *("--state", "/var/lib/hedgerow", "--certificates", str(KEYS)),
        *("--token-file", str(ETC / "token")),
    )
    return Node(
        name="controller",
        address=CONTROLLER,
        own=("hedgerow",),
        copies=_keys(keys / "controller", "controller"),
        texts={str(ETC / "config.yaml"): config, str(ETC / "token"): token + "\n"},
        held={"agents": f"{CONTROLLER}:{AGENTS_PORT}"},
        children=(Child("controller", command, ("api", "agents")),),
    )


def _node(lab: Lab, name: str, programs: Programs, keys: Path) -> Node:
    sockets = {"agent": str(RUN / "agent.sock"), "docker": str(RUN / "docker.sock"), "calls": str(RUN / "calls.sock")}
    texts = {
        str(ETC / "agent.yaml"): _agent_yaml(lab, name),
        "/etc/docker/plugins/hedgerow.spec": f"unix://{RUN}/docker.sock\n",
        "/etc/containers/storage.conf": STORAGE_CONF,
        "/etc/containers/containers.conf": CONTAINERS_CONF,
        "/etc/containers/policy.json": json.dumps(POLICY),
    }
    copies = _keys(keys / name, "agent")
    return Node(
        name=name,
        address=address_of(name),
        own=("docker", "containers", "cni", "hedgerow"),
        copies=copies | {"/opt/cni/bin/hedgerow-cni": str(programs.shim)},
        texts=texts,
        held=sockets,
        children=tuple(_engines(lab, programs)),
        forward=True,
    )


def _agent_yaml(lab: Lab, name: str) -> str:
    return (
        f"name: {name}\n"
        f"underlay: {address_of(name)}\n"
        f"controllers: ['{CONTROLLER}:{AGENTS_PORT}']\n"
        f"certificates: {KEYS}\n"
        f"engines: [{', '.join(lab.engines)}]\n"
        "host_rootfs: true\n"
    )


def _engines(lab: Lab, programs: Programs) -> list[Child]:
    children = [
        Child("relay", (str(programs.relay),), ("docker",)),
        Child("agent", (*programs.hedgerow, "agent", "--config", str(ETC / "agent.yaml")), ("calls", "agent")),
    ]
    if "docker" in lab.engines:
        command = (programs.dockerd, "--storage-driver", "overlay2", "--exec-opt", "native.cgroupdriver=cgroupfs")
        # A new dockerd at once meets the old one's containerd on its way out, and gives up.
        children.append(Child("dockerd", command, pause_s=5))
    if "podman" in lab.engines:
        socket = "unix:///run/podman/podman.sock"
        children.append(Child("podman", (programs.podman, "system", "service", "--time", "0", socket)))
    return children


def links(programs: Programs) -> dict[str, str]:
    """Names in a node's first PATH entry: the docker client of this engine."""
    return {str(LAB_RUN / "bin/docker"): programs.docker} if programs.docker else {}
