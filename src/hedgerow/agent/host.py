"""The agent's hold on its host: what it must know of it, and every kind of kernel object, ready for the loop."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from hedgerow.config.agent import AgentSettings
from hedgerow.errors import Refused
from hedgerow.kernel import bpf, bpffs, links
from hedgerow.kernel.maps import LAYOUT, FastWay, Maps, probe_fast_way
from hedgerow.kernel.netlink import Channel
from hedgerow.reconcile.loop import Target

from .datapath.addresses import Addresses
from .datapath.agents import Agents
from .datapath.allow import Allow
from .datapath.devices import Devices
from .datapath.firewall import Firewall
from .datapath.links import Links
from .datapath.prefixes import Prefixes
from .datapath.programs import Programs
from .datapath.routes import Routes
from .datapath.settings import Settings
from .datapath.sysctls import Sysctls
from .objects import Local
from .worker import Removals, Threaded

BPF = Path("/run/hedgerow/bpf")


def look(settings: AgentSettings) -> Local:
    """Raises Refused when no interface has the underlay address."""
    with Channel() as channel:
        place = links.addresses(channel).get(settings.underlay)
        link = links.dump(channel).get(place.index) if place is not None else None
    if place is None or link is None:
        raise Refused(
            f"no interface of this host has the underlay address {settings.underlay}",
            "set `underlay` in agent.yaml to an address that this host has",
        )
    return Local(
        underlay=settings.underlay,
        subnet=place.subnet,
        link=link.name,
        mtu_bytes=link.mtu_bytes,
        tunnel_port=settings.vxlan_port,
        fast=settings.way == "auto",
        controllers=tuple(_addresses(settings.controllers)),
    )


def _addresses(controllers: Iterable[str]) -> Iterator[IPv4Address]:
    for written in controllers:
        with contextlib.suppress(ValueError):
            yield IPv4Address(written.rpartition(":")[0])


@dataclass(frozen=True, slots=True)
class Host:
    """`links` is what attaching calls itself; `targets` are all kinds, for the loop."""

    maps: Maps
    links: Links
    can_send_fast: bool
    targets: tuple[Target, ...]


def take_hold(
    local: Callable[[], Local],
    worker: Executor,
    removals: Removals,
    *,
    recorded: Callable[[], Collection[str]],
    remade: Callable[[str, int], None],
) -> Host:
    """Loads the programs; maps that are pinned are taken over with all that is in them. Raises HedgerowError."""
    bpffs.ensure_mounted(BPF)
    loaded = bpf.Object(bpf.object_file(), BPF / f"v{LAYOUT}")
    maps, channel = Maps.open(loaded), Channel()
    endpoints = Links(
        channel,
        maps,
        loaded.program("from_container"),
        recorded=recorded,
        removals=removals,
        remade=remade,
    )
    kinds = (
        *(Devices(channel), Addresses(channel), Routes(channel), Sysctls()),
        *(Programs(channel, loaded, lambda: local().link), Settings(maps), Agents(maps)),
        *(Prefixes(maps, local), Allow(maps), endpoints),
    )
    # nft is a process of its own that takes some 20 ms: nobody who starts a container waits behind it.
    fast = FastWay.SEND in probe_fast_way(loaded)
    return Host(maps, endpoints, fast, (*(Threaded(kind, worker) for kind in kinds), Threaded(Firewall(), None)))
