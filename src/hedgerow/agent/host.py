"""The agent's hold on its host: what it must know of it, and every kind of kernel object, ready for the loop."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from hedgerow.config.agent import AgentSettings
from hedgerow.errors import Refused
from hedgerow.kernel import bpf, bpffs, layouts, links
from hedgerow.kernel.elements import Elements
from hedgerow.kernel.maps import LAYOUT, FastWay, Maps, probe_fast_way
from hedgerow.kernel.netlink import Channel
from hedgerow.model.endpoint import LINK_MARK, Address
from hedgerow.reconcile.loop import Rows, Target
from hedgerow.wire.listen import split_address

from .datapath.addresses import Addresses
from .datapath.agents import Agents
from .datapath.allow import Allow
from .datapath.barred import Barred
from .datapath.devices import Devices
from .datapath.docker_user import DockerUser
from .datapath.firewall import Firewall
from .datapath.links import Links
from .datapath.members import Members
from .datapath.pins import Pins
from .datapath.prefixes import Prefixes
from .datapath.programs import Programs
from .datapath.published import Published, written
from .datapath.routes import Routes
from .datapath.services import Services
from .datapath.settings import Settings
from .datapath.sysctls import Sysctls
from .objects import TABLE, Local
from .worker import Removals, Threaded

BPF = Path("/run/hedgerow/bpf")
BRIDGE = "bridge"


def look(settings: AgentSettings) -> Local:
    """Raises Refused when no interface has the underlay address."""
    with Channel() as channel:
        found = {**links.addresses(channel), **links.addresses(channel, version=6)}
        shown = links.dump(channel)
    place = found.get(settings.underlay)
    link = shown.get(place.index) if place is not None else None
    if place is None or link is None:
        raise Refused(
            f"no interface of this host has the underlay address {settings.underlay}",
            "set `underlay` in agent.yaml to an address that this host has",
        )
    bridges = frozenset(each.index for each in shown.values() if each.kind == BRIDGE and each.index != link.index)
    apart = bridges | {each.index for each in shown.values() if each.name.startswith(LINK_MARK)}
    return Local(
        underlay=settings.underlay,
        subnet=place.subnet,
        link=link.name,
        mtu_bytes=link.mtu_bytes,
        tunnel_port=settings.vxlan_port,
        fast=settings.way == "auto" and settings.underlay.version == 4,
        controllers=tuple(_addresses(settings.controllers)),
        bridges=bridges,
        addresses=tuple(address for address, at in found.items() if at.index not in apart and _is_called(address)),
    )


def _is_called(address: Address) -> bool:
    """Whether others may know the host by it."""
    return not (address.is_loopback or address.is_link_local)


def _addresses(controllers: Iterable[str]) -> Iterator[Address]:
    for text in controllers:
        with contextlib.suppress(ValueError):
            yield ip_address(split_address(text)[0])


@dataclass(frozen=True, slots=True)
class Host:
    """`links` and `published` are what attaching calls itself; `targets` are all kinds, for the loop. `programs` are
    the ids of those that were loaded.
    """

    maps: Maps
    links: Links
    published: Published
    can_send_fast: bool
    targets: tuple[Target, ...]
    programs: Mapping[str, int]


def take_hold(
    local: Callable[[], Local],
    worker: Executor,
    removals: Removals,
    *,
    recorded: Callable[[], Collection[str]],
    remade: Callable[[str, int], None],
    published: Callable[[], Rows],
    sysctls: Callable[[], Iterable[str]],
) -> Host:
    """Loads the programs; maps that are pinned are taken over with all that is in them. Raises HedgerowError."""
    bpffs.ensure_mounted(BPF)
    pins = BPF / f"v{LAYOUT}"
    layouts.adopt(BPF, pins, bpf.object_file())
    loaded = bpf.Object(bpf.object_file(), pins)
    maps, channel = Maps.open(loaded), Channel()
    endpoints = Links(
        channel,
        maps,
        loaded.program("from_container"),
        recorded=recorded,
        removals=removals,
        remade=remade,
    )
    ports = Published(Elements(TABLE))
    kinds = (
        *(Pins(loaded.pinned_maps(), BPF, pins), Devices(channel), Addresses(channel), Routes(channel)),
        *(Sysctls(sysctls), Barred(maps), Programs(channel, loaded, lambda: local().link), Settings(maps)),
        *(Agents(maps), Prefixes(maps, local), Members(maps), Allow(maps), Services(maps), endpoints, ports),
    )
    # nft and iptables are processes that take some 20 ms: nobody who starts a container waits behind them.
    apart = (Firewall(lambda: written(published())), DockerUser())
    fast = FastWay.SEND in probe_fast_way(loaded)
    targets = (*(Threaded(kind, worker) for kind in kinds), *(Threaded(kind, None) for kind in apart))
    programs = {name: loaded.program(name).id for name in ("from_underlay", "from_tunnel", "from_container")}
    return Host(maps, endpoints, ports, fast, targets, programs)
