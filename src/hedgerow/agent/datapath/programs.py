"""Programs: what judges packets at the underlay's link, at hedge0 and at hr-peer.

Each is replaced in one step: a packet meets the old program or the new one. Those of endpoints belong to their links.
Ours: handle 0x4852, priority 10 at the ingress of these.   Needs: the links.   Missing: nothing arrives from other
hosts, for what comes out of hedge0 is no packet of the host's own, and strangers' tunnel packets get as far as there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hedgerow.agent.objects import HOST_PEER, TUNNEL_LINK, Attached, Kind
from hedgerow.errors import HedgerowError
from hedgerow.kernel import bpf, links, netlink
from hedgerow.kernel.netlink import Channel
from hedgerow.reconcile.loop import Faults, Rows, one_by_one
from hedgerow.reconcile.plan import Key, Op, Set


class Programs:
    """`underlay` is the name of the underlay's link, as of now."""

    kind = Kind.PROGRAM

    def __init__(self, channel: Channel, loaded: bpf.Object, underlay: Callable[[], str]) -> None:
        self._channel = channel
        self._underlay = underlay
        self._programs = {name: loaded.program(name) for name in ("from_underlay", "from_tunnel", "from_container")}

    def read(self) -> Rows:
        places = {self._underlay(): "from_underlay", TUNNEL_LINK: "from_tunnel", HOST_PEER: "from_container"}
        found: dict[Key, object] = {}
        for link, program in places.items():
            index = links.index_of(link)
            attached = bpf.attached_id(index) if index else 0
            if attached:
                found[Key(self.kind, link)] = Attached(program, is_current=attached == self._programs[program].id)
        return found

    def apply(self, ops: Sequence[Op]) -> Faults:
        return one_by_one(ops, self._apply)

    def _apply(self, op: Op) -> None:
        index = links.index_of(op.key.name)
        match op:
            case Set(_, _, Attached(program)):
                if not index:
                    raise HedgerowError(f"there is no link {op.key.name}")
                bpf.attach_clsact(self._programs[program], index)
            case _ if index:
                self._channel.send(netlink.delete_program(index))
