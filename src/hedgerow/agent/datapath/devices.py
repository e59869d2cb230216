"""Devices: the tunnel's (hedge0) and the pair by which the host reaches its own containers (hr-host, hr-peer).

hedge0 is one VXLAN device for all networks; each packet brings its VNI. hr-host carries the host's addresses; what the
host sends into it comes out of hr-peer, where the data path judges it like a container's.
Ours: by name.   Needs: nothing.   Missing: no packet between hosts the slow way; the host cannot reach containers.
"""

from __future__ import annotations

from collections.abc import Sequence

from hedgerow.agent.objects import HOST_LINK, HOST_PEER, TUNNEL_LINK, Device, Kind
from hedgerow.kernel import links, netlink, sysctl
from hedgerow.kernel.maps import GATEWAY_MAC
from hedgerow.kernel.netlink import Channel, Peer
from hedgerow.reconcile.loop import Faults, Rows, one_by_one
from hedgerow.reconcile.plan import Key, Op, Set


class Devices:
    kind = Kind.DEVICE

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def read(self) -> Rows:
        found: dict[Key, object] = {}
        tunnel, host, peer = (links.find(self._channel, name) for name in (TUNNEL_LINK, HOST_LINK, HOST_PEER))
        if tunnel is not None:
            found[Key(self.kind, TUNNEL_LINK)] = _device(tunnel)
        if host is not None:
            whole = peer is not None and peer.is_up and peer.mtu_bytes == host.mtu_bytes and peer.mac == GATEWAY_MAC
            device = _device(host)
            found[Key(self.kind, HOST_LINK)] = device if whole else Device(b"", 0, None, is_up=False)
        return found

    def apply(self, ops: Sequence[Op]) -> Faults:
        return one_by_one(ops, self._apply)

    def _apply(self, op: Op) -> None:
        match op:
            case Set(Key(_, name), _, Device() as new):
                old = self.read().get(op.key)  # the loop may have been unable to read, and then knows of none
                if not isinstance(old, Device) or (old.mac, old.port) != (new.mac, new.port):
                    self._remove(name)
                    self._add(name, new)
                for link in (HOST_LINK, HOST_PEER) if name == HOST_LINK else (name,):
                    index = links.index_of(link)
                    self._channel.send(netlink.set_mtu(index, new.mtu_bytes), netlink.set_up(index))
            case _:
                self._remove(op.key.name)

    def _add(self, name: str, device: Device) -> None:
        if device.port is not None:
            self._channel.send(links.new_tunnel(name, mac=device.mac, mtu=device.mtu_bytes, port=device.port))
            self._quiet(name, device)
        else:
            self._channel.send(netlink.new_veth(name, device.mac, device.mtu_bytes, Peer(HOST_PEER, GATEWAY_MAC)))
            self._quiet(name, device)
            self._quiet(HOST_PEER, device)

    def _quiet(self, name: str, device: Device) -> None:
        if sysctl.has_ipv6(device.mtu_bytes):
            self._channel.send(netlink.without_link_local(links.index_of(name)))
            sysctl.trust_no_router(name)

    def _remove(self, name: str) -> None:
        index = links.index_of(name)
        if index:
            links.remove(self._channel, index)


def _device(link: links.Link) -> Device:
    return Device(link.mac, link.mtu_bytes, link.tunnel_port, link.is_up)
