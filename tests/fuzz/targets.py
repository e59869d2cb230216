"""Every place where bytes from outside become something of ours: who may send them, and how they are read there.

A target's `read` takes any bytes, and raises only what would be a fault of the project: what is refused in words is
fine, and what is taken is checked once more by rules that are written down here, apart from the code.
"""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from contract.fakes import FakeAttachments, FakeState

from hedgerow.agent.engines import cni_protocol, docker
from hedgerow.apps import marathon
from hedgerow.config import agent as agent_config
from hedgerow.config import load as cluster_config
from hedgerow.controller.api import guard, v1
from hedgerow.errors import HedgerowError
from hedgerow.kernel import bpffs, netlink
from hedgerow.model.agent import Agent, AgentId, Vtep
from hedgerow.model.endpoint import parse_mac
from hedgerow.model.network import ClusterSpec
from hedgerow.model.snapshot import Revision
from hedgerow.wire import codec, messages

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "a-token-of-32-characters-or-more"


@dataclass(frozen=True)
class Target:
    """`words` are pieces that its language is made of."""

    name: str
    read: Callable[[bytes], object]
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...]

    def __str__(self) -> str:
        return self.name


def refusing(read: Callable[[bytes], object], *refusals: type[Exception]) -> Callable[[bytes], object]:
    def taken(data: bytes) -> None:
        with contextlib.suppress(HedgerowError, *refusals):
            read(data)

    return taken


def finish(work: Coroutine[Any, Any, object]) -> None:
    """To its end, without an event loop: what stands behind these calls here never waits."""
    with contextlib.suppress(StopIteration):
        work.send(None)
        raise AssertionError("it waits for something")


def keys(text: str, form: str) -> tuple[bytes, ...]:
    return tuple(form.format(key).encode() for key in text.split())


# ---- files ----------------------------------------------------------------------------------------------------------


def read_config(data: bytes) -> None:
    """What is accepted is the same after a way through store and wire: none, absent and empty stay three things."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return
    checked = cluster_config.check(text, "config.yaml")
    assert (checked.spec is None) == bool(checked.problems)
    for problem in (*checked.problems, *checked.warnings):
        assert "config.yaml" in str(problem)
    if checked.spec is not None:
        assert codec.from_json(codec.to_json(checked.spec), ClusterSpec) == checked.spec
        delta = messages.Delta(Revision(1, 1), cluster=checked.spec)
        assert codec.unpack(codec.pack(0, delta)) == (0, delta)


def read_agent_config(data: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        file.write(data)
        file.flush()
        found = agent_config.load(Path(file.name))
    assert found.state.is_absolute()
    assert found.certificates.is_absolute()
    assert 1024 <= found.vxlan_port <= 65535


YAML_WORDS = tuple(
    b": |- |[|]|{|}|, |&a |*a|<<|!!str |!!python/object:os.system |~|null|true|on|off|012|0x7f|1e999|.inf|.nan|'|\"|#|%"
    b"|---\n|...\n|? |>\n|\\x00|12:30:45|2001-01-01|\n|\n  |\n    |\t|10.0.0.0/8|fd00::/48|::ffff:10.0.0.0/104|0|-1|"
    b"[]|{}|\xef\xbb\xbf|\xe2\x80\xa8|\xc2\xb2|65536|4294967296|99999999999999999999".split(b"|")
)
CONFIG_KEYS = """name subnet prefix subnet6 prefix6 enabled allow isolated rules internal attach agents hosts to from
ports app label network host_services vtep_subnet vtep_subnet6 vtep_mac_oui overlays dcos_overlay_network
dcos_overlay_enable dcos_overlay_mtu"""
RULED = b"""dcos_overlay_network:
  vtep_subnet: 44.128.0.0/20
  vtep_mac_oui: 70:B3:D5:00:00:00
  overlays:
    - {name: db, subnet: 10.1.0.0/16, prefix: 24, internal: true}
    - name: web
      subnet: 10.2.0.0/16
      prefix: 24
      allow: [db, {to: db, ports: [5432/tcp, 8000-8100/udp, icmp]}]
      rules:
        - {name: in, from: {app: /front}, to: {label: {tier: back}}, ports: [80/tcp]}
      attach: apps
      agents: [n1, "rack2-*"]
      hosts: deny
      host_services: [api, 9100/tcp, metadata]
"""
AGENT_YAML = b"name: n1\nunderlay: 192.168.0.1\ncontrollers: ['192.168.0.250:8081']\nway: auto\nvxlan_port: 64000\n"

# ---- wire -----------------------------------------------------------------------------------------------------------


def read_frame(data: bytes) -> None:
    channel, message = codec.unpack(data)
    assert codec.unpack(codec.pack(channel, message)) == (channel, message)


def _frames() -> Iterator[bytes]:
    agent = AgentId("a" * 32)
    hello = messages.Hello(1, 1, agent, "n1", IPv4Address("192.168.0.1"), "b", None, Revision(1, 2), 1)
    vtep = Vtep(ip=IPv4Address("44.128.0.1"), mac=bytes(6))
    own = Agent(id=agent, name="n1", underlay=IPv4Address("192.168.0.1"), incarnation=1, vtep=vtep, prefixes=())
    for message in (
        hello,
        messages.Welcome(1, own),
        messages.Refusal("name", "taken", "choose another"),
        messages.Report(Revision(1, 2), faults=(messages.RowFault("link x", "busy", 1.5),), whole=True),
        messages.Call("drops", b"{}", 1.0),
        messages.Chunk(b"x"),
        messages.Credit(5),
        messages.End("no", "yes"),
        messages.Ping(),
        messages.Delta(Revision(1, 3), agents={agent: own}),
    ):
        yield codec.pack(0, message)


LARGEST = b"\xff\xff\xff\xff"
MSGPACK_WORDS = (b"\x91", b"\x92", b"\x80", b"\xde\xff\xff", b"\xc0", b"\xc6" + LARGEST, b"\x81\x01", b"\xcb", b"\xa0",
                 b"\xdd" + LARGEST, b"\xa4type", b"\xcf" + 2 * LARGEST, b"\xd3\x80")  # fmt: skip

# ---- engines --------------------------------------------------------------------------------------------------------


def read_cni(data: bytes) -> None:
    request = cni_protocol.parse(data)
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,511}", request.container)
    assert 0 < len(request.ifname.encode()) < 16
    assert not set(request.ifname) & set("/:% \t\n\0")
    assert request.ifname not in (".", "..")
    cni_protocol.addresses_asked_for(request)
    cni_protocol.mac_asked_for(request)


CNI_SEED = (
    b"CNI_COMMAND=ADD\0CNI_CONTAINERID=c1\0CNI_NETNS=/run/netns/x\0CNI_IFNAME=eth0\0CNI_ARGS=IP=9.0.0.7;MAC=02:00:00:00"
    b':00:01\0\0{"cniVersion":"1.0.0","name":"dcos-1","type":"hedgerow-cni","runtimeConfig":{"ips":["9.0.0.9/8"],'
    b'"mac":"02:48:09:00:00:02","portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]},'
    b'"args":{"org.apache.mesos":{"network_info":{"ip_addresses":[{"ip_address":"9.0.0.8"}]}}},"prevResult":null}'
)
JSON_WORDS = tuple(
    b'{|}|[|]|:|,|"|null|true|false|0|-1|1e999|NaN|Infinity|\\ud800|\\u0000|99999999999999999999|1.5|""|"a"|[[|{"":|'
    b"\xff|\xed\xa0\x80|\xc2\xb2".split(b"|")
)


def read_docker(data: bytes) -> None:
    """The call's name, a blank, its body."""
    method, _, body = data.partition(b" ")
    state = FakeState()
    driver = docker.Driver(FakeAttachments(state), state)  # type: ignore[arg-type]
    name = method.decode("latin-1")
    if driver.knows(name):
        finish(driver.answer(name, body, "c1"))


DOCKER_SEEDS = tuple(
    method.encode() + b" " + json.dumps(body).encode()
    for method, body in {
        "IpamDriver.RequestPool": {"Pool": "9.0.0.0/8", "SubPool": "", "Options": {"network": "dcos-1"}, "V6": False},
        "IpamDriver.RequestAddress": {"PoolID": f"{1:032x}", "Address": "9.0.0.7", "Options": None},
        "IpamDriver.ReleaseAddress": {"PoolID": f"{1:032x}", "Address": "9.0.0.7"},
        "NetworkDriver.CreateNetwork": {
            "Options": {"com.docker.network.generic": {"network": "dcos-1"}, "com.docker.network.enable_ipv6": False},
            "IPv4Data": [{"AddressSpace": "hedgerow", "Pool": "9.0.0.0/8", "Gateway": "169.254.64.1/32"}],
        },
        "NetworkDriver.CreateEndpoint": {
            "EndpointID": "e1" * 32,
            "Interface": {"Address": "9.0.0.7/32", "MacAddress": "02:00:00:00:00:01"},
            "Options": {
                "com.docker.network.portmap": [{"Proto": 6, "IP": "", "Port": 80, "HostIP": "", "HostPort": 8080}]
            },
        },
        "NetworkDriver.Join": {"EndpointID": "e1" * 32, "SandboxKey": "/run/docker/netns/abc"},
        "NetworkDriver.Leave": {"EndpointID": "e1" * 32},
        "NetworkDriver.DeleteEndpoint": {"EndpointID": "e1" * 32},
    }.items()
)

# ---- people ---------------------------------------------------------------------------------------------------------


def read_headers(data: bytes) -> None:
    """Lines `name: value`: whoever gets through the guard has a name of the API's and the token."""
    headers = [tuple(part.strip() for part in line.split(b":", 1)) for line in data.split(b"\n") if b":" in line]
    headers = [(name.lower(), value) for name, value in headers]
    sent: list[dict[str, Any]] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive() -> Any:
        raise AssertionError("nobody reads before it is known who asks")

    async def send(event: Any) -> None:
        sent.append(event)

    scope = {"type": "http", "method": "GET", "path": "/v1/networks", "headers": headers}
    finish(guard.Guard(inner, TOKEN)(scope, receive, send))
    status = sent[0]["status"]
    assert status in (200, 401, 403, 411, 413, 421)
    if status == 200:
        last = dict(headers)
        assert guard.host_name(last[b"host"].decode("latin-1")) in guard.LOOPBACK
        assert TOKEN in (guard.credential(last[b"authorization"].decode("latin-1")) or "")


GUARD_SEED = (
    b"Host: localhost:8080\nOrigin: http://localhost\nContent-Length: 5\nAuthorization: Bearer " + TOKEN.encode()
)
GUARD_WORDS = tuple(
    b"Host: |Origin: |Authorization: |Basic |token=|Bearer |Content-Length: |Transfer-Encoding: chunked|http://[|"
    b"http://|null|\xb2|\n|:|[::1]|127.0.0.1|evil.example|99999999999999999999|-1|, |@|%00|Og==".split(b"|")
)


def read_query(data: bytes) -> None:
    text = data.decode("latin-1")
    for read in (v1.duration_s, v1.revision_number, parse_mac):
        with contextlib.suppress(HedgerowError):
            read(text)


def read_app(data: bytes) -> None:
    reading = marathon.read_app(data, "2026-01-01T00:00:00.000Z")
    assert re.fullmatch(r"(/[-a-z0-9.]+)+", reading.app.id)
    assert ".." not in reading.app.id.split("/")
    assert codec.from_json(codec.to_json(reading.app), type(reading.app)) == reading.app


APP_KEYS = """id cmd args container docker image type networks mode name ipAddress networkName portMappings user fetch
containerPort hostPort protocol labels env cpus mem instances volumes parameters privileged network"""

# ---- kernel ---------------------------------------------------------------------------------------------------------


def read_netlink(data: bytes) -> None:
    """Names of links are any bytes, and whoever has a user namespace may give them."""
    for event in netlink.messages(data):
        assert isinstance(event.link, str)
    netlink.attributes(data)


NETLINK_SEED = (
    (44).to_bytes(4, "little") + (16).to_bytes(2, "little") + bytes(10) + netlink.link_head(3, 1)
    + netlink.text(netlink.IFLA_IFNAME, "hr-peer")
)  # fmt: skip

MOUNTS = Path("/run/hedgerow/bpf")
MOUNTINFO = b"""24 1 0:22 / / rw,relatime shared:1 - overlay overlay rw
36 24 0:31 / /run rw - tmpfs tmpfs rw
40 36 0:40 / /run/hedgerow/bpf rw - bpf bpf rw,mode=700
"""


def read_mounts(data: bytes) -> None:
    """Ours is told whatever else is mounted, at places whose names others choose."""
    bpffs.kind_at(data, MOUNTS)
    assert bpffs.kind_at(data + b"\n" + MOUNTINFO, MOUNTS) == "bpf"


TARGETS = (
    Target(
        "config.yaml",
        read_config,
        (RULED, *((ROOT / "examples" / name).read_bytes() for name in ("lab.yaml", "walls.yaml", "defaults.yaml"))),
        (*YAML_WORDS, *keys(CONFIG_KEYS, "{}: ")),
    ),
    Target("agent.yaml", refusing(read_agent_config), (AGENT_YAML,), YAML_WORDS),
    Target("wire frame", refusing(read_frame), tuple(_frames()), MSGPACK_WORDS),
    Target("CNI request", refusing(read_cni, cni_protocol.CniError), (CNI_SEED,), (*JSON_WORDS, b"\0", b"%d", b"../")),
    Target("Docker call", refusing(read_docker), DOCKER_SEEDS, JSON_WORDS),
    Target("HTTP head", read_headers, (GUARD_SEED,), GUARD_WORDS),
    Target("query", read_query, (b"10s", b"1.42", b"02:48:09:00:00:02"), (b"9" * 5000, b"\xb2", b".", b"ms", b":")),
    Target(
        "Marathon app",
        refusing(read_app),
        tuple(path.read_bytes() for path in sorted((ROOT / "examples").glob("*.json"))),
        (*JSON_WORDS, *keys(APP_KEYS, '"{}":')),
    ),
    Target(
        "mounts",
        read_mounts,
        (MOUNTINFO,),
        (b" - ", b" ", b"\n", b"\x0b", b"\xe2\x80\xa8", b"/run/hedgerow/bpf", b"bpf"),
    ),
    Target("netlink event", read_netlink, (NETLINK_SEED,), (b"\x10\0", b"\x04\0\x03\0", b"\xff\xff\xff\xff", b"\0\0")),
)
