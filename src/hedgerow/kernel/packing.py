"""How addresses lie in the maps' keys and values: always 16 bytes, an IPv4 address v4-mapped (RFC 4291 2.5.5.2)."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

IPAddress = IPv4Address | IPv6Address
IPPrefix = IPv4Network | IPv6Network

_MAPPED = bytes(10) + b"\xff\xff"
_NO_ADDRESS = bytes(16)


def pack_address(address: IPAddress | None) -> bytes:
    if address is None:
        return _NO_ADDRESS
    return _MAPPED + address.packed if isinstance(address, IPv4Address) else address.packed


def unpack_address(data: bytes) -> IPAddress:
    return IPv4Address(data[12:]) if data[:12] == _MAPPED else IPv6Address(data)


def unpack_optional(data: bytes) -> IPAddress | None:
    return None if data == _NO_ADDRESS else unpack_address(data)


def unpack4(data: bytes) -> IPv4Address | None:
    return None if data == _NO_ADDRESS else IPv4Address(data[12:])


def unpack6(data: bytes) -> IPv6Address | None:
    return None if data == _NO_ADDRESS else IPv6Address(data)


def pack_prefix(prefix: IPPrefix) -> bytes:
    bits = prefix.prefixlen + (96 if isinstance(prefix, IPv4Network) else 0)
    return struct.pack("=I", bits) + pack_address(prefix.network_address)


def unpack_prefix(data: bytes) -> IPPrefix:
    (bits,) = struct.unpack_from("=I", data)
    address = unpack_address(data[4:])
    return IPv4Network((address, bits - 96)) if isinstance(address, IPv4Address) else IPv6Network((address, bits))


def pack_number(value: int) -> bytes:
    return struct.pack("=I", value)


def unpack_number(data: bytes) -> int:
    return int(struct.unpack("=I", data)[0])


def pack_long(value: int) -> bytes:
    return struct.pack("=Q", value)


def unpack_long(data: bytes) -> int:
    return int(struct.unpack("=Q", data)[0])
