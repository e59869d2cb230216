"""What must hold between the keys of config.yaml: nothing missing, nothing twice, no range inside another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from . import schema, walls
from .settings import Notes, Section, Setting

Range = IPv4Network | IPv6Network

UNUSABLE: tuple[tuple[Range, str], ...] = (
    (IPv4Network("0.0.0.0/8"), "this host (RFC 1122, 3.2.1.3)"),
    (IPv4Network("127.0.0.0/8"), "loopback (RFC 1122, 3.2.1.3)"),
    (IPv4Network("169.254.0.0/16"), "link-local (RFC 3927)"),
    (IPv4Network("224.0.0.0/4"), "multicast (RFC 5771)"),
    (IPv4Network("240.0.0.0/4"), "reserved (RFC 1112, 4)"),
    (IPv6Network("::/8"), "loopback and mapped IPv4 (RFC 4291, 2.5)"),
    (IPv6Network("fe80::/10"), "link-local (RFC 4291, 2.5.6)"),
    (IPv6Network("ff00::/8"), "multicast (RFC 4291, 2.7)"),
)
"""Ranges in which no container can have an address; the data path drops them whatever the configuration says."""


@dataclass(frozen=True, slots=True)
class _Family:
    subnet: Setting[Any]
    prefix: Setting[Any]
    vtep: Setting[Any]
    longest: int


FAMILIES = (
    _Family(schema.SUBNET, schema.PREFIX, schema.VTEP_SUBNET, schema.LONGEST_PREFIX),
    _Family(schema.SUBNET6, schema.PREFIX6, schema.VTEP_SUBNET6, schema.LONGEST_PREFIX6),
)


def check_between(top: Section, tunnels: Section, overlays: Sequence[Section], notes: Notes) -> dict[str, int]:
    """The line of each network's name, for what may name it."""
    if not tunnels.has(schema.VTEP_MAC_OUI):
        notes.wrong(tunnels.line, tunnels.path, "", "vtep_mac_oui is missing", "write vtep_mac_oui: 70:B3:D5:00:00:00")
    for overlay in overlays:
        _check_whole(overlay, notes)
        for family in FAMILIES:
            _check_block(overlay, family, notes)
        _check_isolated(overlay, notes)
    names = _check_names(overlays, notes)
    for family in FAMILIES:
        _check_vtep(tunnels, overlays, family, notes)
        _check_ranges(tunnels, overlays, family, notes)
    _check_mtu(top, overlays, notes)
    return names


def _check_whole(overlay: Section, notes: Notes) -> None:
    if not overlay.has(schema.NAME_OF):
        notes.wrong(overlay.line, overlay.path, "", "name is missing", "write name: and a word")
    if not (overlay.has(schema.SUBNET) or overlay.has(schema.SUBNET6)):
        notes.wrong(overlay.line, overlay.path, "", "subnet is missing", "write subnet: and prefix:")


def _check_block(overlay: Section, family: _Family, notes: Notes) -> None:
    """The length of an agent's block against the subnet it is cut from."""
    subnet, prefix = overlay.get(family.subnet), overlay.get(family.prefix)
    low = subnet.prefixlen if subnet is not None else 0
    if subnet is not None and low > family.longest:
        notes.wrong(*overlay.place(family.subnet), "too small for containers", f"/{family.longest} is the smallest")
        return
    between = f"write a number from {low} to {family.longest}"
    if overlay.has(family.subnet) and not overlay.has(family.prefix):
        told = f"{family.prefix.key}, the length of each agent's block, is missing"
        notes.wrong(*overlay.place(family.subnet), told, f"write {family.prefix.key}: {min(low + 8, family.longest)}")
    elif overlay.has(family.prefix) and not overlay.has(family.subnet):
        notes.wrong(*overlay.place(family.prefix), f"there is no {family.subnet.key}", f"write {family.subnet.key}:")
    elif prefix is not None and prefix > family.longest:
        notes.wrong(*overlay.place(family.prefix), "a block must have at least two addresses to give out", between)
    elif prefix is not None and prefix < low:
        notes.wrong(*overlay.place(family.prefix), f"a block of /{prefix} does not fit into {subnet}", between)


def _check_names(overlays: Sequence[Section], notes: Notes) -> dict[str, int]:
    """The line of each name."""
    lines: dict[str, int] = {}
    for overlay in overlays:
        name = overlay.get(schema.NAME_OF)
        line, path, value = overlay.place(schema.NAME_OF)
        if name and name in lines:
            notes.wrong(line, path, value, f"the network in line {lines[name]} has this name", "choose another")
        elif name:
            lines[name] = line
    return lines


def is_closed(overlay: Section) -> bool:
    """Whether the network has walls inside."""
    return overlay.has(walls.RULES) or overlay.get(schema.ISOLATED)


def _check_isolated(overlay: Section, notes: Notes) -> None:
    if overlay.has(walls.RULES) and overlay.values.get(schema.ISOLATED.key) is False:
        told = "rules let nothing else pass inside the network, and this says that everything does"
        notes.wrong(*overlay.place(schema.ISOLATED), told, "take isolated out, or rules")


def _check_vtep(tunnels: Section, overlays: Iterable[Section], family: _Family, notes: Notes) -> None:
    subnet = tunnels.get(family.vtep)
    if subnet is None:
        user = next((overlay for overlay in overlays if overlay.has(family.subnet)), None)
        if user is not None and not tunnels.has(family.vtep):
            example = "44.128.0.0/20" if family is FAMILIES[0] else "fd01:a::/64"
            told = f"{family.vtep.key} is missing, a network has {family.subnet.key}"
            notes.wrong(tunnels.line, tunnels.path, "", told, f"write {family.vtep.key}: {example}")
        return
    shortest = 8 if family is FAMILIES[0] else 0
    if not shortest <= subnet.prefixlen <= family.longest:
        told = (
            "two agents could have one MAC, which has room for 24 bits of the address"
            if subnet.prefixlen < shortest
            else "too small for two agents"
        )
        notes.wrong(*tunnels.place(family.vtep), told, f"write a range from /{shortest} to /{family.longest}")


def _check_ranges(tunnels: Section, overlays: Iterable[Section], family: _Family, notes: Notes) -> None:
    """Every range usable, none inside another. Ranges nest or are apart, so sorting them finds all that nest."""
    written = [(tunnels, family.vtep, family.vtep.key), *((o, family.subnet, o.get(schema.NAME_OF)) for o in overlays)]
    found: list[tuple[Any, int, tuple[int, str, str], str]] = []
    for section, setting, name in written:
        subnet = section.get(setting)
        if subnet is None:
            continue
        place = section.place(setting)
        for unusable, meaning in UNUSABLE:
            if unusable.version == subnet.version and subnet.overlaps(unusable):
                notes.wrong(*place, f"{unusable} in it is {meaning}", "choose a range without it")
        found.append((subnet, len(found), place, name or place[1]))
    around: list[tuple[Any, int, tuple[int, str, str], str]] = []
    for one in sorted(found, key=lambda item: (item[0].network_address, item[0].prefixlen, item[1])):
        while around and around[-1][0].broadcast_address < one[0].network_address:
            around.pop()
        if around:
            later, earlier = (one, around[-1]) if one[2][0] > around[-1][2][0] else (around[-1], one)
            told = f"overlaps {earlier[0]} of {earlier[3]} in line {earlier[2][0]}"
            notes.wrong(*later[2], told, "choose a range of its own")
        around.append(one)


def _check_mtu(top: Section, overlays: Iterable[Section], notes: Notes) -> None:
    mtu = top.get(schema.MTU)
    if mtu < schema.SMALLEST_MTU6 and any(overlay.has(schema.SUBNET6) for overlay in overlays):
        smallest = schema.SMALLEST_MTU6
        told = f"IPv6 needs {smallest} (RFC 8200, 5), and a network has subnet6"
        notes.wrong(*top.place(schema.MTU), told, f"write {smallest} or more")
