"""CNI's words: what an engine says of a container, and the answer in the shape of its version. No I/O.

The shim sends the CNI_* variables, each ended by NUL, an empty one, then stdin. Three shapes of results exist (CNI
0.2.0; 0.3.0 to 0.4.0; 1.0.0); Mesos reads the oldest only, and says no version at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import ip_address
from typing import Any

import msgspec
from msgspec import Struct

from hedgerow.errors import BadInput, Conflict, Exhausted, HedgerowError, NotFound, Unreachable
from hedgerow.model.endpoint import Address, Endpoint, parse_mac, routes_inside
from hedgerow.model.network import Network
from hedgerow.model.published import PortRequest
from hedgerow.model.published import request as port_request

VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0")
COMMANDS = ("ADD", "CHECK", "DEL")
FIRST_INTERFACE = "eth0"


class Code(IntEnum):
    """CNI 1.0.0, "Error"; from 100 on a plug-in's own; 999 is what the reference library gives to an untyped error."""

    INCOMPATIBLE_VERSION = 1
    BAD_ENVIRONMENT = 4
    BAD_JSON = 6
    BAD_CONFIG = 7
    TRY_AGAIN = 11
    REFUSED = 100
    EXHAUSTED = 101
    CONFLICT = 102
    NOT_AS_ADDED = 103
    INTERNAL = 999


class CniError(Exception):
    """An answer that is an error, with its code."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code


class PortMapping(Struct):
    """Of the capability portMappings. Without a host port one is drawn."""

    containerPort: int = 0  # noqa: N815
    hostPort: int = 0  # noqa: N815
    protocol: str = "tcp"
    hostIP: str | None = None  # noqa: N815


class RuntimeConfig(Struct):
    """The capabilities that our conflists declare."""

    ips: list[str] | None = None
    mac: str | None = None
    portMappings: list[PortMapping] | None = None  # noqa: N815


class CniArgs(Struct):
    ips: list[str] | None = None


class MesosAddress(Struct):
    ip_address: str | None = None


class MesosNetworkInfo(Struct):
    ip_addresses: list[MesosAddress] | None = None


class MesosArgs(Struct):
    network_info: MesosNetworkInfo | None = None


class Args(Struct):
    cni: CniArgs | None = None
    mesos: MesosArgs | None = msgspec.field(name="org.apache.mesos", default=None)


class PreviousAddress(Struct):
    address: str = ""
    ip: str = ""


class PreviousResult(Struct):
    ips: list[PreviousAddress] | None = None
    ip4: PreviousAddress | None = None
    ip6: PreviousAddress | None = None


class Ipam(Struct):
    type: str = ""


class NetworkConfig(Struct):
    """What of a network's configuration means something here. `network` overrides `name`, for files named otherwise."""

    name: str = ""
    cniVersion: str = ""  # noqa: N815
    network: str | None = None
    ipam: Ipam | None = None
    args: Args | None = None
    runtimeConfig: RuntimeConfig | None = None  # noqa: N815
    prevResult: PreviousResult | None = None  # noqa: N815

    @property
    def version(self) -> str:
        """A configuration that says none has the oldest one's shape: as in the reference library."""
        return self.cniVersion or VERSIONS[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    command: str
    container: str
    ifname: str
    netns: str
    args: Mapping[str, str]
    config: NetworkConfig


def parse(message: bytes) -> Request:
    """Raises CniError. A DEL is taken with any configuration, also a damaged one: it needs none, and its container is
    gone whatever the answer.
    """
    head, end, stdin = message.partition(b"\0\0")
    variables = dict(row.split("=", 1) for row in head.decode(errors="replace").split("\0") if "=" in row)
    if not end:
        raise CniError(Code.BAD_ENVIRONMENT, "no request of hedgerow-cni: its variables do not end")
    command = variables.get("CNI_COMMAND", "")
    if command not in COMMANDS:
        raise CniError(
            Code.BAD_ENVIRONMENT, f"unknown CNI_COMMAND: {command!r}, not one of {', '.join(COMMANDS)}, VERSION"
        )
    _check_variables(command, variables)
    return Request(
        command=command,
        container=variables["CNI_CONTAINERID"],
        ifname=variables["CNI_IFNAME"],
        netns=variables.get("CNI_NETNS", ""),
        args=dict(row.split("=", 1) for row in variables.get("CNI_ARGS", "").split(";") if "=" in row),
        config=NetworkConfig() if command == "DEL" else _config(command, stdin),
    )


def _check_variables(command: str, variables: Mapping[str, str]) -> None:
    required = ["CNI_CONTAINERID", "CNI_IFNAME", *(["CNI_NETNS"] if command != "DEL" else [])]
    if missing := [name for name in required if not variables.get(name)]:
        raise CniError(Code.BAD_ENVIRONMENT, f"required env variables [{','.join(missing)}] missing")
    container, ifname = variables["CNI_CONTAINERID"], variables["CNI_IFNAME"]
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", container) or len(container) > 512:
        raise CniError(
            Code.BAD_ENVIRONMENT, f"CNI_CONTAINERID {container[:80]!r} has characters other than A-Za-z0-9_.-"
        )
    # With a percent sign it would be a pattern, and the kernel would choose the name.
    if not re.fullmatch(r"[^/:%\s]{1,15}", ifname) or len(ifname.encode()) > 15 or ifname in (".", ".."):
        raise CniError(Code.BAD_ENVIRONMENT, f"CNI_IFNAME {ifname[:80]!r} cannot be the name of a Linux interface")


def _config(command: str, stdin: bytes) -> NetworkConfig:
    try:
        config = msgspec.json.decode(stdin, type=NetworkConfig)
    except msgspec.ValidationError as error:
        raise CniError(Code.BAD_CONFIG, f"the network's configuration: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CniError(Code.BAD_JSON, f"the network's configuration is not JSON: {error}") from error
    if config.version not in VERSIONS:
        known = ", ".join(VERSIONS)
        raise CniError(
            Code.INCOMPATIBLE_VERSION, f"incompatible CNI versions: config is {config.version}, known are {known}"
        )
    if command == "CHECK" and config.version not in VERSIONS[4:]:
        raise CniError(
            Code.INCOMPATIBLE_VERSION, f"config version {config.version} does not allow CHECK: it came with 0.4.0"
        )
    if not config.name:
        raise CniError(Code.BAD_CONFIG, "the network's configuration has no name")
    if config.ipam and config.ipam.type:
        raise CniError(
            Code.BAD_CONFIG,
            f"ipam.type {config.ipam.type!r}: a network's addresses come from this host's own part of it; remove ipam",
        )
    if command == "ADD" and config.prevResult:
        raise CniError(Code.BAD_CONFIG, "hedgerow-cni must be the first plug-in of its list")
    return config


def addresses_asked_for(request: Request) -> dict[int, Address]:
    """The static address of each IP version; the first of four places that names any counts. Raises BadInput."""
    runtime, args = request.config.runtimeConfig, request.config.args
    mesos = args.mesos.network_info if args and args.mesos else None
    places = (
        (runtime and runtime.ips) or [],
        (args and args.cni and args.cni.ips) or [],
        [row.ip_address for row in (mesos and mesos.ip_addresses) or [] if row.ip_address],
        [request.args["IP"]] if request.args.get("IP") else [],
    )
    asked = next((place for place in places if place), [])
    found: dict[int, Address] = {}
    for text in asked:
        try:
            address = ip_address(text.split("/")[0])
        except ValueError as error:
            raise BadInput(f"static address {text!r}", "write an IPv4 or IPv6 address") from error
        if found.setdefault(address.version, address) != address:
            raise BadInput(
                f"static addresses {', '.join(asked)}", "an interface has one address of a family: ask for one"
            )
    return found


def ports_asked_for(request: Request) -> list[PortRequest]:
    """Podman tells every network of a container the same ports: they are published by its first interface, through
    which its answers leave. Raises BadInput and Refused, as `model.published.request`.
    """
    runtime = request.config.runtimeConfig
    if request.ifname != FIRST_INTERFACE:
        return []
    return [
        port_request(row.protocol.lower(), row.containerPort, row.hostPort, bind=row.hostIP or "")
        for row in (runtime and runtime.portMappings) or []
    ]


def mac_asked_for(request: Request) -> bytes | None:
    runtime = request.config.runtimeConfig
    text = (runtime and runtime.mac) or request.args.get("MAC")
    return parse_mac(text) if text else None


def result(request: Request, endpoint: Endpoint, network: Network) -> dict[str, Any]:
    """The answer to ADD in the shape of the configuration's version (CNI 0.2.0, 0.3.1, 1.0.0, "Result")."""
    version, gateways = request.config.version, {4: network.gateway, 6: network.gateway6}
    routes = {4: list[dict[str, str]](), 6: list[dict[str, str]]()}
    for to, via in routes_inside(network, request.ifname, endpoint.addresses):
        routes[to.version].append({"dst": str(to)} if via is None else {"dst": str(to), "gw": str(via)})
    ips: list[dict[str, Any]] = [
        {"address": f"{address}/{address.max_prefixlen}", "gateway": str(gateways[address.version]), "interface": 1}
        for address in endpoint.addresses
    ]
    if version in VERSIONS[:2]:
        oldest = {
            f"ip{address.version}": {"ip": ip["address"], "gateway": ip["gateway"], "routes": routes[address.version]}
            for address, ip in zip(endpoint.addresses, ips, strict=True)
        }
        return {"cniVersion": version, **oldest, "dns": {}}
    if version != VERSIONS[-1]:
        for address, ip in zip(endpoint.addresses, ips, strict=True):
            ip["version"] = str(address.version)
    inside = {"name": request.ifname, "mac": endpoint.mac.hex(":"), "sandbox": request.netns}
    interfaces = [{"name": endpoint.link}, inside]
    return {"cniVersion": version, "interfaces": interfaces, "ips": ips, "routes": routes[4] + routes[6], "dns": {}}


def check_previous(request: Request, endpoint: Endpoint) -> None:
    """CHECK's own part: what the engine remembers must be what is so. Raises CniError."""
    previous = request.config.prevResult
    old = [previous.ip4, previous.ip6] if previous else []
    rows = [*((previous and previous.ips) or []), *(row for row in old if row)]
    told = {(row.address or row.ip).split("/")[0] for row in rows}
    for address in map(str, endpoint.addresses):
        if told and address not in told:
            raise CniError(
                Code.NOT_AS_ADDED,
                f"{endpoint.key} has address {address}, prevResult says {', '.join(sorted(told))}",
            )


def check_ports(request: Request, endpoint: Endpoint) -> None:
    """The same of the published ports. Raises CniError, and as `ports_asked_for`."""
    for port in ports_asked_for(request):
        if not any(port.is_met_by(published) for published in endpoint.published):
            raise CniError(
                Code.NOT_AS_ADDED, f"port {port.container_port}/{port.protocol} of {endpoint.key} is not published"
            )


def error_object(error: Exception) -> dict[str, Any]:
    """CNI 1.0.0, "Error"."""
    match error:
        case CniError():
            code = error.code
        case Exhausted():
            code = Code.EXHAUSTED
        case Conflict():
            code = Code.CONFLICT
        case NotFound() | BadInput():
            code = Code.BAD_CONFIG
        case Unreachable():
            code = Code.TRY_AGAIN
        case HedgerowError():
            code = Code.REFUSED
        case _:
            code = Code.INTERNAL
    return {"cniVersion": VERSIONS[-1], "code": int(code), "msg": str(error) or repr(error)}
