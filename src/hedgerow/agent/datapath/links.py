"""Links: the endpoints of this host in the kernel. A veth pair, the program at its host end, its rows of two maps.

The pair is made with both ends down; then comes the program, then the inside, then the host end comes up, and the rows
last: until they are there the data path drops what the container sends, and nothing finds it. Going, the rows go first.
Ours: names that begin with hr- and a digest of the endpoint's key, and every row of the maps "ports" and "endpoints".
Needs: hedge0's program, the host's settings, the firewall.   Missing: the container has no network.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from hedgerow.agent import inside
from hedgerow.agent.objects import HOST_LINK, HOST_PEER, Inside, Kind, LinkRecord, Orphan, container_number
from hedgerow.agent.steps import Steps
from hedgerow.agent.worker import Removals
from hedgerow.errors import HedgerowError
from hedgerow.kernel import bpf, links, netlink, nsfs, sysctl
from hedgerow.kernel.maps import GATEWAY_MAC, EndpointRow, Maps, Port, PortFlag
from hedgerow.kernel.netlink import Channel, Peer
from hedgerow.kernel.packing import IPAddress
from hedgerow.model.endpoint import LINK_MARK, Address, present
from hedgerow.reconcile.loop import Faults, Rows, one_by_one
from hedgerow.reconcile.plan import Key, Op, Remove, Set

EndpointRows = Mapping[IPAddress, EndpointRow | None]


class Links:
    """`recorded`: the links of all endpoints that there is a record of, attached or not. Their rows come and go with
    what is wanted, but the link itself stays until the engine deletes the endpoint: nobody could give it back to a
    container. `remade` is told name and index of a link that the loop made anew.
    """

    kind = Kind.LINK

    def __init__(
        self,
        channel: Channel,
        maps: Maps,
        program: bpf.Program,
        *,
        recorded: Callable[[], Collection[str]],
        removals: Removals,
        remade: Callable[[str, int], None],
    ) -> None:
        self._channel = channel
        self._maps = maps
        self._program = program
        self._program_id = program.id
        self._recorded = recorded
        self.removals = removals
        self._remade = remade

    def read(self) -> Rows:
        ports, endpoints = dict(self._maps.ports.items()), dict(self._maps.endpoints.items())
        shown, recorded = links.dump(self._channel), set(self._recorded())
        found: dict[Key, object] = {}
        mtu = next((link.mtu_bytes for link in shown.values() if link.name == HOST_LINK), 0)
        for link in shown.values():
            if not link.name.startswith(LINK_MARK) or link.name in (HOST_LINK, HOST_PEER):
                continue
            port = ports.get(link.index)
            if port is not None and _addresses(port):
                found[Key(self.kind, link.name)] = self._record(link, port, endpoints, mtu)
            elif link.name not in recorded:
                found[Key(self.kind, link.name)] = Orphan(link.index)
        live = {index for index, link in shown.items() if link.name.startswith(LINK_MARK)}
        for index, port in ports.items():
            if index not in live:
                found[Key(self.kind, f"port {index}")] = Orphan(index, _addresses(port))
        for address, row in endpoints.items():
            if row.ifindex not in live:
                found[Key(self.kind, f"endpoint {address}")] = Orphan(row.ifindex, (address,))
        return found

    def _record(self, link: links.Link, port: Port, endpoints: EndpointRows, mtu: int = 0) -> LinkRecord:
        """`mtu` in bytes, of the networks: what a host's end drops for being too long, nobody hears of."""
        row = EndpointRow(link.index, port.vni, port.mac, port.flags, port.group, port.container)
        attached = bpf.attached_id(link.index)
        wrong = {
            "no program": not attached,
            "program of an earlier agent": attached not in (0, self._program_id),
            "down": not link.is_up,
            f"mtu {link.mtu_bytes}": link.mtu_bytes < mtu,
            "no endpoint row": any(endpoints.get(address) != row for address in _addresses(port)),
        }
        return LinkRecord(
            vni=port.vni,
            group=port.group,
            container=port.container,
            address=port.address,
            address6=port.address6,
            mac=port.mac,
            internal=PortFlag.INTERNAL in port.flags,
            no_hosts=PortFlag.NO_HOSTS in port.flags,
            wrong=", ".join(word for word, is_so in wrong.items() if is_so),
            index=link.index,
        )

    def apply(self, ops: Sequence[Op]) -> Faults:
        return one_by_one(ops, self._apply)

    def _apply(self, op: Op) -> None:
        match op:
            case Set(Key(_, name), _, LinkRecord() as record):
                index = links.index_of(name)
                if not index and not record.netns:
                    raise HedgerowError(f"the link of {record.addresses[0]} is gone", "start its container anew")
                if index:
                    self._bring_up(name, index, record)
                    self._put_rows(index, record)
                else:
                    self._remade(name, self.make(name, record).index)
            case Remove(Key(_, name), LinkRecord() | Orphan() as old):
                self.close(old.index, *old.addresses)
                if name not in self._recorded():
                    self.removals.add(old.index)

    def make(self, name: str, record: LinkRecord, *, peer: str = "", steps: Steps | None = None) -> LinkRecord:
        """A new pair in place of any old one. Returns the record with its index and its namespace's inode.

        With `record.netns` the inner end is born there and set up; without it is left here, down, under the name
        `peer`. Nothing stays when it fails. Raises HedgerowError, OSError.
        """
        steps = steps or Steps()
        old = links.index_of(name)
        if old:
            links.remove(self._channel, old)
            steps.done("old link")
        try:
            if not record.netns:
                return self._make(name, peer, record, None, steps)
            with nsfs.opened(record.netns) as namespace:
                if record.netns_inode not in (0, nsfs.inode(namespace)):
                    raise HedgerowError(f"the container of {record.addresses[0]} is gone", "remove it with its engine")
                return self._make(name, _inside(record).ifname, record, namespace, steps)
        except BaseException:
            self.removals.add(links.index_of(name))
            raise

    def _make(self, name: str, peer: str, record: LinkRecord, namespace: int | None, steps: Steps) -> LinkRecord:
        mtu = _inside(record).mtu_bytes
        pair = netlink.new_veth(name, GATEWAY_MAC, mtu, Peer(peer, record.mac, namespace))
        try:
            self._channel.send(pair)
        except FileExistsError:
            # The container's last interface of this name may still be on its way out.
            self.removals.wait()
            self._channel.send(pair)
        index = links.index_of(name)
        steps.done("link")
        self._channel.send(*netlink.attach_program(index, self._program.fd))
        steps.done("program")
        if namespace is not None:
            inside.set_up(namespace, _inside(record), record.addresses)
            steps.done("inside")
        self._set_up(name, index, record)
        steps.done("up")
        inode = nsfs.inode(namespace) if namespace is not None else record.netns_inode
        made = replace(record, index=index, netns_inode=inode, container=container_number(inode))
        self._put_rows(index, made)
        steps.done("rows")
        return made

    def _bring_up(self, name: str, index: int, record: LinkRecord) -> None:
        bpf.attach_clsact(self._program, index)
        self._channel.send(netlink.set_mtu(index, _inside(record).mtu_bytes))
        self._set_up(name, index, record)

    def _set_up(self, name: str, index: int, record: LinkRecord) -> None:
        quiet = [netlink.without_link_local(index)] if sysctl.has_ipv6(_inside(record).mtu_bytes) else []
        if quiet and record.address6 is not None:
            sysctl.trust_no_router(name)
        self._channel.send(*quiet, netlink.set_up(index))

    def _put_rows(self, index: int, record: LinkRecord) -> None:
        flags = PortFlag.INTERNAL if record.internal else PortFlag.NONE
        flags |= PortFlag.NO_HOSTS if record.no_hosts else PortFlag.NONE
        group, container = record.group, record.container
        port = Port(record.vni, flags, record.mac, record.address, record.address6, group, container)
        self._maps.ports.put(index, port)
        for address in record.addresses:
            self._maps.endpoints.put(address, EndpointRow(index, record.vni, record.mac, flags, group, container))

    def close(self, index: int, *addresses: Address) -> None:
        """From here on no packet of this link passes. An address may have become another's meanwhile."""
        for address in addresses:
            row = self._maps.endpoints.get(address)
            if row is not None and row.ifindex == index:
                self._maps.endpoints.delete(address)
        self._maps.ports.delete(index)

    def missing(self, name: str, record: LinkRecord) -> str:
        """What the host's side lacks, in words; empty when all is there."""
        link = links.find(self._channel, name)
        if link is None:
            return f"link {name}"
        port = self._maps.ports.get(link.index)
        if port is None or _addresses(port) != record.addresses:
            return f"row of {name} in the map ports"
        found = self._record(link, port, {address: self._maps.endpoints.get(address) for address in record.addresses})
        return found.wrong


def _addresses(port: Port) -> tuple[Address, ...]:
    return present(port.address, port.address6)


def _inside(record: LinkRecord) -> Inside:
    assert record.inside is not None
    return record.inside
