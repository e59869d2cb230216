"""Python's records and C's are the same bytes; the reasons are the same numbers, and each is explained."""

from __future__ import annotations

import platform
import re
import struct
import subprocess
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.kernel import events, flows, maps
from hedgerow.kernel.events import DropEvent
from hedgerow.kernel.flows import (
    AllowFlag,
    AllowKey,
    AllowRow,
    ConnectionFlag,
    ConnectionRow,
    FlowKey,
    MemberRow,
    Range,
    ServiceFlag,
    ServiceKey,
    ServiceRow,
)
from hedgerow.kernel.maps import (
    AgentFlag,
    AgentRow,
    ConfigFlag,
    EndpointRow,
    HostConfig,
    Port,
    PortFlag,
    PrefixKind,
    PrefixRow,
    Reason,
)
from hedgerow.policy.firewall import COUNTERS

ROOT = Path(__file__).parents[2]
HEADER = (ROOT / "bpf/maps.h").read_text()

LAYOUTS = {
    "config": HostConfig.FORMAT,
    "port": Port.FORMAT,
    "endpoint": EndpointRow.FORMAT.replace("6s6s", "12s"),  # one field in C: both are stored at once
    "prefix": PrefixRow.FORMAT,
    "prefix_key": "=I16s",
    "agent": AgentRow.FORMAT,
    "member": MemberRow.FORMAT,
    "allow_key": AllowKey.FORMAT,
    "allow": f"=II{struct.calcsize(AllowRow.FORMAT) - 8}s",
    "range": f"={Range.FORMAT}",
    "connection_key": FlowKey.FORMAT,
    "connection": ConnectionRow.FORMAT,
    "host_service_key": ServiceKey.FORMAT,
    "host_service": ServiceRow.FORMAT,
    "counter_key": "=II",
    "counter": "=QQ",
    "drop_event": DropEvent.FORMAT,
    "trace_event": events.TraceEvent.FORMAT,
}
"""Structures of maps.h that Python packs or unpacks."""


def fields_of(structure: str) -> list[str]:
    body = re.search(rf"struct {structure} {{(.*?)^}}", HEADER, re.S | re.M)
    assert body, structure
    lines = re.sub(r"/\*.*?\*/", "", body[1], flags=re.S)
    names = [
        name for line in lines.split(";") for name in re.sub(r"^\s*(?:(?:union|struct) )?\w+", "", line).split(",")
    ]
    return [re.sub(r"\[.*", "", name).strip() for name in names if name.strip() and not name.strip().startswith("pad")]


def offsets_of(layout: str) -> list[int]:
    """Where each field of a struct format begins; padding is none."""
    found, at = [], 0
    for count, code in re.findall(r"(\d*)([a-zA-Z])", layout):
        size = struct.calcsize(f"={count}{code}")
        if code != "x":
            repeats = 1 if code == "s" else int(count or 1)
            found += [at + n * (size // repeats) for n in range(repeats)]
        at += size
    return found


def test_every_record_has_the_layout_of_its_c_structure() -> None:
    """The compiler says so, field by field."""
    checks = ['#include "maps.h"', "#include <stddef.h>"]
    for structure, layout in LAYOUTS.items():
        checks.append(f'_Static_assert(sizeof(struct {structure}) == {struct.calcsize(layout)}, "{structure}");')
        fields, offsets = fields_of(structure), offsets_of(layout)
        assert len(fields) == len(offsets), structure
        checks += [
            f'_Static_assert(offsetof(struct {structure}, {field}) == {offset}, "{structure}.{field}");'
            for field, offset in zip(fields, offsets, strict=True)
        ]
    command = ["clang", "-target", "bpf", "-fsyntax-only", f"-I/usr/include/{platform.machine()}-linux-gnu"]
    command += [f"-I{ROOT / 'bpf'}", "-x", "c", "-"]
    compiled = subprocess.run(command, input="\n".join(checks), text=True, capture_output=True, check=False)
    assert compiled.returncode == 0, compiled.stderr


def names_of(enum: str, mark: str) -> dict[str, int]:
    body = re.search(rf"enum {enum} {{(.*?)}}", HEADER, re.S)
    assert body
    return {name: number for number, name in enumerate(re.findall(rf"{mark}_(\w+)", body[1]), 1)}


def test_reasons_and_kinds_are_those_of_the_header() -> None:
    reasons = names_of("reason", "REASON")
    assert reasons.pop("COUNT") == len(Reason) + 1
    assert reasons == {reason.name: reason.value for reason in Reason}
    assert names_of("prefix_kind", "PREFIX") == {kind.name: kind.value for kind in PrefixKind}
    assert names_of("program", "PROGRAM") == {program.name: program.value for program in events.Program}
    assert names_of("stage", "STAGE") == {stage.name: stage.value for stage in events.Stage}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT_HOST", PortFlag.HOST),
        ("PORT_INTERNAL", PortFlag.INTERNAL),
        ("PORT_NO_HOSTS", PortFlag.NO_HOSTS),
        ("CONFIG_FAST", ConfigFlag.FAST),
        ("CONFIG_TRACING", ConfigFlag.TRACING),
        ("AGENT_CONTROLLER", AgentFlag.CONTROLLER),
        ("AGENT_NO_TUNNEL", AgentFlag.NO_TUNNEL),
        ("GROUP_CLOSED", flows.GROUP_CLOSED),
        ("MAX_RANGES", flows.MAX_RANGES),
        ("ALLOW_BOTH", AllowFlag.BOTH),
        ("CONNECTION_REPLIED", ConnectionFlag.REPLIED),
        ("CONNECTION_OPENER_DONE", ConnectionFlag.OPENER_DONE),
        ("CONNECTION_REPLIER_DONE", ConnectionFlag.REPLIER_DONE),
        ("CONNECTION_RESET", ConnectionFlag.RESET),
        ("CONNECTION_CUT", ConnectionFlag.CUT),
        ("SERVICE_OWN_HOST", ServiceFlag.OWN_HOST),
        ("SERVICE_CONTROLLERS", ServiceFlag.CONTROLLERS),
        ("LAYOUT", maps.LAYOUT),
        ("TEMPLATE_BYTES", maps.TUNNEL_OVERHEAD_BYTES),
    ],
)
def test_numbers_are_those_of_the_header(name: str, value: int) -> None:
    found = re.search(rf"#define {name} (\w+)", HEADER)
    assert found
    assert int(found[1], 0) == value


def test_bits_of_the_fast_way_are_those_of_the_program() -> None:
    wire = (ROOT / "bpf/wire.h").read_text()
    found = {name: int(value) for name, value in re.findall(r"#define CAN_(\w+) (\d+)", wire)}
    assert found == {bit.name: bit.value for bit in maps.FastWay if bit}


def test_every_drop_reason_is_documented_once_and_none_that_is_not() -> None:
    page = (ROOT / "docs/reference/drop-reasons.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \|(.+)\|(.+)\|$", page, re.M)
    assert [name for name, _, _ in rows] == [*(reason.name.lower() for reason in Reason), *COUNTERS]
    assert all(len(cell.strip()) > 20 for _, meaning, cure in rows for cell in (meaning, cure))


# ---- packing

addresses4 = st.ip_addresses(v=4)
vnis = st.integers(0, 2**24 - 1)
macs = st.binary(min_size=6, max_size=6)
flags = st.sampled_from(PortFlag)
groups = st.integers(0, 2**32 - 1)
ports = st.integers(0, 65535)
global6 = st.ip_addresses(v=6).filter(lambda address: address.ipv4_mapped is None and int(address))
some4 = addresses4.filter(int)
addresses = st.one_of(addresses4, global6)
agents = st.none() | some4 | global6


class Record(Protocol):
    FORMAT: str

    def pack(self) -> bytes: ...

    @classmethod
    def unpack(cls, data: bytes) -> Record: ...


@given(addresses)
def test_an_address_survives_the_map(address: IPv4Address | IPv6Address) -> None:
    assert maps.unpack_address(maps.pack_address(address)) == address


@given(
    st.one_of(
        st.builds(Port, vnis, flags, macs, st.none() | some4, st.none() | global6, groups, groups),
        st.builds(EndpointRow, st.integers(1, 2**31), vnis, macs, flags, groups, groups),
        st.builds(PrefixRow, st.sampled_from(PrefixKind), vnis, agents, next_hop=st.none() | some4, group=groups),
        st.builds(AllowKey, groups, groups),
        st.builds(
            AllowRow,
            st.sampled_from(AllowFlag),
            st.lists(st.builds(Range, st.integers(0, 255), ports, ports, groups), max_size=16).map(tuple),
        ),
        st.builds(MemberRow, groups),
        st.builds(AgentRow, st.sampled_from(AgentFlag)),
        st.builds(FlowKey, addresses, addresses, ports, ports, st.integers(0, 255)),
        st.builds(ConnectionRow, st.integers(0, 2**64 - 1), groups, st.sampled_from(ConnectionFlag), groups, groups),
        st.builds(ServiceKey, vnis, st.integers(0, 255), ports),
        st.builds(ServiceRow, st.sampled_from(ServiceFlag)),
        st.builds(
            HostConfig,
            tunnel_ifindex=st.integers(1, 2**31),
            underlay_ifindex=st.integers(1, 2**31),
            peer_ifindex=st.integers(1, 2**31),
            underlay=addresses,
            inner_mtu_bytes=st.integers(552, 65535),
            tunnel_port=st.integers(1, 65535),
            host_ifindex=st.integers(0, 2**31),
            flags=st.sampled_from(ConfigFlag),
            connections_each=st.integers(0, 2**32 - 1),
        ),
    )
)
def test_a_record_survives_the_map(record: Record) -> None:
    data = record.pack()
    assert len(data) == struct.calcsize(record.FORMAT)
    assert type(record).unpack(data) == record


@pytest.mark.parametrize("text", ["9.0.0.0/24", "0.0.0.0/0", "9.1.2.3/32", "fd01::/64", "::/0", "fd01::7/128"])
def test_a_prefix_survives_the_map_and_ipv4_never_matches_ipv6(text: str) -> None:
    prefix = IPv6Network(text) if ":" in text else IPv4Network(text)
    key = maps.pack_prefix(prefix)
    assert maps.unpack_prefix(key) == prefix
    (bits,) = struct.unpack_from("=I", key)
    assert bits == prefix.prefixlen + (96 if prefix.version == 4 else 0)


@given(addresses4, addresses4, st.integers(1, 65535))
def test_a_template_is_a_valid_header_that_counts_no_length(
    source: IPv4Address, destination: IPv4Address, port: int
) -> None:
    template = maps.tunnel_template(source, destination, port)
    assert len(template) == maps.TUNNEL_OVERHEAD_BYTES
    total = sum(struct.unpack("!10H", template[:20]))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    assert total == 0xFFFF
    assert (template[12:16], template[16:20]) == (source.packed, destination.packed)
    assert struct.unpack("!HHHH", template[20:28]) == (0, port, 0, 0)
    assert template[28:36] == bytes.fromhex("0800000000000000")
    assert template[36:42] == maps.GATEWAY_MAC


def test_a_template_survives_its_row() -> None:
    template = maps.tunnel_template(IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2"), 64000)
    row = PrefixRow(PrefixKind.REMOTE, 5000, IPv4Address("10.0.0.2"), template)
    assert PrefixRow.unpack(row.pack()) == row


def test_a_drop_event_is_read_as_the_data_path_wrote_it() -> None:
    source, destination = IPv4Address("9.0.0.2"), IPv6Address("fd01::2")
    packed = [maps.pack_address(source), maps.pack_address(destination), b"\x12\x34", b"\x00\x50"]
    data = struct.pack(DropEvent.FORMAT, 5, *packed[:2], 4096, 7, *packed[2:], Reason.RULE_CHANGED, 6, 3)
    event = DropEvent(5, source, destination, 4096, 7, 0x1234, 80, Reason.RULE_CHANGED, 6, 3)
    assert DropEvent.unpack(data) == event


def test_a_group_that_is_not_given_is_that_of_an_open_network() -> None:
    assert Port(4096, PortFlag.NONE, bytes(6), None).group == 4096
    assert EndpointRow(1, 4096, bytes(6)).group == 4096
    assert PrefixRow(PrefixKind.LOCAL, 4096).group == 4096


def test_a_row_of_more_ranges_than_the_data_path_reads_is_refused() -> None:
    with pytest.raises(ValueError, match="17 ranges"):
        AllowRow(ranges=(Range(6, 80, 80),) * 17)


def test_icmp_is_one_protocol_in_rules() -> None:
    assert Range(58) == Range(1)


def test_a_flow_reversed_twice_is_itself() -> None:
    flow = FlowKey(IPv4Address("9.0.0.2"), IPv4Address("9.0.0.3"), 4321, 80, 6)
    assert flow.reversed == FlowKey(flow.destination, flow.source, 80, 4321, 6)
    assert flow.reversed.reversed == flow


@pytest.mark.parametrize(
    ("seen", "closed"),
    [
        (ConnectionFlag.NONE, False),
        (ConnectionFlag.REPLIED | ConnectionFlag.OPENER_DONE, False),
        (ConnectionFlag.OPENER_DONE | ConnectionFlag.REPLIER_DONE, True),
        (ConnectionFlag.RESET, True),
    ],
)
def test_a_connection_is_closed_when_both_sides_are_done_or_one_reset_it(seen: ConnectionFlag, closed: bool) -> None:
    assert ConnectionRow(0, flags=seen).is_closed is closed
