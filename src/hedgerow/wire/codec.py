"""Records to bytes and back: msgpack between processes, JSON on disk and in the store. Strict about types."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any, TypeVar

import msgspec

from hedgerow.errors import BadInput
from hedgerow.model.agent import Agent, AgentId, UnderlayAddress
from hedgerow.model.app import Instance, InstanceId
from hedgerow.model.member import Member, MemberKey
from hedgerow.model.network import ClusterSpec, Network, NetworkId
from hedgerow.model.snapshot import Revision

from .messages import STATE_CHANNEL, Message

T = TypeVar("T")
_ADDRESSES = (IPv4Address, IPv4Network, IPv6Address, IPv6Network)
_EITHER: tuple[object, ...] = (UnderlayAddress,)


def _to_builtin(value: Any) -> Any:
    if isinstance(value, _ADDRESSES):
        return str(value)
    raise NotImplementedError(type(value))


def _from_builtin(kind: type, value: Any) -> Any:
    if kind in _EITHER:
        return ip_address(value)
    if kind in _ADDRESSES:
        return kind(value)
    raise NotImplementedError(kind)


UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)
"""What decoding raises: nested too deep is no error of msgspec's own, also where the value would only be skipped."""

_packer = msgspec.msgpack.Encoder(enc_hook=_to_builtin)
_unpacker = msgspec.msgpack.Decoder(tuple[int, Message], dec_hook=_from_builtin)
_json = msgspec.json.Encoder(enc_hook=_to_builtin, order="deterministic")


def pack(channel: int, message: Message) -> bytes:
    return _packer.encode((channel, message))


class _Snapshot(msgspec.Struct, frozen=True):
    revision: Revision
    own: AgentId
    cluster: msgspec.Raw
    networks: msgspec.Raw
    agents: msgspec.Raw
    members: msgspec.Raw
    instances: Mapping[InstanceId, Instance]


class _State(msgspec.Struct, frozen=True, tag="state"):
    snapshot: _Snapshot


class Shared(msgspec.Struct, frozen=True):
    """The part of a snapshot that is the same for all agents, packed once for all of them."""

    cluster: msgspec.Raw
    networks: msgspec.Raw
    agents: msgspec.Raw
    members: msgspec.Raw


def share(
    cluster: ClusterSpec,
    networks: Mapping[NetworkId, Network],
    agents: Mapping[AgentId, Agent],
    members: Mapping[MemberKey, Member],
) -> Shared:
    return Shared(*(msgspec.Raw(_packer.encode(part)) for part in (cluster, networks, agents, members)))


def pack_state(revision: Revision, own: AgentId, shared: Shared, instances: Mapping[InstanceId, Instance]) -> bytes:
    """The frame of `State` for one agent."""
    snapshot = _Snapshot(revision, own, shared.cluster, shared.networks, shared.agents, shared.members, instances)
    return _packer.encode((STATE_CHANNEL, _State(snapshot)))


def unpack(frame: bytes) -> tuple[int, Message]:
    """Raises BadInput for what is not `[channel, message]`."""
    try:
        return _unpacker.decode(frame)
    except UNREADABLE as error:
        raise BadInput(
            f"a frame of {len(frame)} bytes cannot be read: {error}", "both sides must speak one protocol"
        ) from error


def to_json(record: object) -> bytes:
    return _json.encode(record)


def from_json(data: bytes, kind: type[T]) -> T:
    """Raises BadInput naming the path of what does not fit."""
    try:
        return msgspec.json.decode(data, type=kind, dec_hook=_from_builtin)
    except UNREADABLE as error:
        raise BadInput(f"a stored {kind.__name__} cannot be read: {error}") from error


def readable(values: Mapping[str, bytes], kind: type[T]) -> tuple[dict[str, T], dict[str, str]]:
    """Records by their keys; and for each that cannot be read, why. One that is damaged must not hide the others."""
    records: dict[str, T] = {}
    damaged: dict[str, str] = {}
    for key, value in values.items():
        try:
            records[key] = from_json(value, kind)
        except BadInput as error:
            damaged[key] = error.message
    return records, damaged
