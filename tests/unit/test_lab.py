"""The lab's pure parts: control groups read from proc(5), members, the meaning of packets, the matrix by networks."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from hedgerow.errors import BadInput
from hedgerow.lab import cgroups, down, matrix, members, places, probe, processes, supervisor
from hedgerow.lab.images import checkout
from hedgerow.lab.places import Place
from hedgerow.lab.probe import Answer, Outcome
from hedgerow.lab.topology import Lab, address_of, beside

HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,release_agent=/lib/x,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
UNIFIED = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
CONTAINER = "900 899 0:29 /docker/abc /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n"


def test_version_one_groups_lie_below_the_own_group_and_version_two_below_the_root() -> None:
    groups = {"cpu,cpuacct": "/user", "name=systemd": "/user/1", "": "/"}
    found = {str(cgroups.group_of(each, "x")) for each in cgroups.hierarchies(HYBRID, groups)}
    assert found == {
        "/sys/fs/cgroup/cpu,cpuacct/user/hedgerow-lab-x",
        "/sys/fs/cgroup/systemd/user/1/hedgerow-lab-x",
        "/sys/fs/cgroup/unified/hedgerow-lab-x",
    }


def test_on_version_two_alone_a_session_s_group_is_left_out() -> None:
    (found,) = cgroups.hierarchies(UNIFIED, {"": "/user.slice/session-3.scope"})
    assert cgroups.group_of(found, "x") == Path("/sys/fs/cgroup/hedgerow-lab-x")


def test_a_mount_of_a_part_of_the_hierarchy_starts_at_that_part() -> None:
    (found,) = cgroups.hierarchies(CONTAINER, {"cpu": "/docker/abc/below"})
    assert cgroups.group_of(found, "x") == Path("/sys/fs/cgroup/cpu/below/hedgerow-lab-x")


def test_of_two_mounts_at_one_place_the_last_counts() -> None:
    (found,) = cgroups.hierarchies(CONTAINER + CONTAINER.replace("/docker/abc", "/"), {"cpu": "/docker/abc"})
    assert found.own == "docker/abc"


def programs() -> members.Programs:
    return members.Programs(
        hedgerow=("py", "-m", "hedgerow.cli.main"),
        outside=("py", "-m", "hedgerow.lab.outside"),
        dockerd="/usr/sbin/dockerd",
        docker="/usr/bin/docker",
        podman="/usr/bin/podman",
        relay=Path("/b/hedgerow-relay"),
        shim=Path("/b/hedgerow-cni"),
    )


def test_every_member_survives_the_way_to_its_supervisor() -> None:
    for node in members.members(Lab(name="x", nodes=2), programs(), "config: 1\n", "secret"):
        plan = json.loads(json.dumps(asdict(node) | {"address": str(node.address)}))
        assert supervisor.node_from(plan) == node


def test_a_node_runs_only_the_engines_it_was_given() -> None:
    nodes = members.members(Lab(name="x", nodes=1, engines=("podman",)), programs(), "", "")
    assert [child.name for child in nodes[-1].children] == ["relay", "agent", "podman"]


def test_the_token_and_the_keys_are_in_the_directory_that_only_root_reads() -> None:
    controller = members.members(Lab(name="x"), programs(), "", "secret")[1]
    secrets = [path for path, text in controller.texts.items() if "secret" in text] + list(controller.copies)
    assert secrets
    assert all(path.startswith("/etc/hedgerow/") for path in secrets)


def test_members_have_addresses_of_their_own_on_the_underlay() -> None:
    every = Lab(name="x", nodes=200).members
    assert len({address_of(name) for name in every}) == len(every) == 202


def test_members_have_addresses_of_ipv6_too_with_the_same_last_number() -> None:
    every = [beside(address_of(name)) for name in Lab(name="x", nodes=200).members]
    assert len(set(every)) == 202
    assert str(beside(address_of("n7"))) == "fd78::7"


def test_what_stands_for_no_address_is_none() -> None:
    row = {"IPAddress": "169.254.64.5", "GlobalIPv6Address": "fd00:6::1"}
    seen = {"NetworkSettings": {"Networks": {"six": row, "four": {"IPAddress": "10.0.0.1", "GlobalIPv6Address": ""}}}}
    assert list(map(str, places.addresses(seen, "six"))) == ["fd00:6::1"]
    assert list(map(str, places.addresses(seen, "four"))) == ["10.0.0.1"]


def test_pairs_of_different_ip_versions_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    four, six = place("n1", "both", 7), replace(place("n2", "both", 8), address=IPv6Address("fd00::8"))
    monkeypatch.setattr(matrix, "cell", lambda source, target: (source, target))
    assert list(matrix.measure([four, six, replace(four, node="n3")])) == [
        (four, replace(four, node="n3")),
        (replace(four, node="n3"), four),
    ]


def test_no_process_is_taken_for_a_supervisor_of_a_lab_that_does_not_exist() -> None:
    assert processes.supervisors(Path("/nowhere")) == {}


def test_a_network_that_overlaps_the_lab_s_underlay_is_refused_by_name() -> None:
    from hedgerow.config.load import load
    from hedgerow.lab.up import check

    text = (checkout() / "examples" / "lab.yaml").read_text().replace("10.80.0.0/14", "192.168.0.0/16")
    with pytest.raises(BadInput, match=r"prod \(192.168.0.0/16\) overlaps"):
        check(Lab(name="x"), load(text))
    six = text.replace("  vtep_subnet:", "  vtep_subnet6: fd01:a::/64\n  vtep_subnet:")
    six = six.replace("subnet: 192.168.0.0/16\n      prefix: 24", "subnet6: 'fd78::/16'\n      prefix6: 64")
    with pytest.raises(BadInput, match=r"prod \(fd78::/16\) overlaps"):
        check(Lab(name="x"), load(six))


IP = bytes([0x45]) + bytes(19)
MARK = bytes(range(16))


@pytest.mark.parametrize(
    ("icmp", "answer"),
    [
        (b"\0\0\0\0" + MARK, Answer.REACHED),
        (b"\0\0\0\0" + MARK[::-1], None),
        (b"\3\r\0\0\0\0\0\0" + IP + b"\x08\0\0\0" + MARK[:4], Answer.REFUSED),
        (b"\3\r\0\0\0\0\0\0" + IP + b"\x08\0\0\0" + b"else", None),
        (b"\x08\0\0\0" + MARK, None),
        (b"\3\r\0\0", None),
    ],
)
def test_only_the_answer_to_the_own_ping_counts(icmp: bytes, answer: Answer | None) -> None:
    assert probe.meaning(IP + icmp, MARK) == answer


@pytest.mark.parametrize(
    ("icmp", "answer"),
    [
        (b"\x81\0\0\0" + MARK, Answer.REACHED),
        (b"\x81\0\0\0" + MARK[::-1], None),
        (b"\1\1\0\0\0\0\0\0" + bytes(40) + b"\x80\0\0\0" + MARK[:4], Answer.REFUSED),
        (b"\1\1\0\0\0\0\0\0" + bytes(40) + b"\x80\0\0\0" + b"else", None),
        (b"\x80\0\0\0" + MARK, None),
        (b"\1\1\0\0", None),
    ],
)
def test_over_ipv6_too_only_the_answer_to_the_own_ping_counts(icmp: bytes, answer: Answer | None) -> None:
    """It comes without the packet's header."""
    assert probe.meaning6(icmp, MARK) == answer


def test_an_echo_request_has_a_right_checksum() -> None:
    assert probe.checksum(probe.echo_request(MARK)) == 0


def place(node: str, network: str, last: int) -> Place:
    return Place(node, "docker", network, IPv4Address(last), Path("/nowhere"))


def test_the_matrix_is_told_by_networks_and_by_whether_the_host_is_the_same() -> None:
    yes, no = Outcome(Answer.REACHED, 0.2), Outcome(Answer.REFUSED, 120.0)
    a, b, c = place("n1", "dev", 1), place("n1", "dev", 2), place("n2", "prod", 3)
    pairs = {(a, b): matrix.Cell(yes, yes), (a, c): matrix.Cell(no, no), (c, a): matrix.Cell(no, yes)}
    assert [(row.source, row.target, row.same_host, row.verdict) for row in matrix.lines(pairs)] == [
        ("dev", "dev", True, "reached"),
        ("dev", "prod", False, "refused"),
        ("prod", "dev", False, "mixed"),
    ]
    assert matrix.slow_refusals(pairs) == [(a, c), (c, a)]


def test_a_wall_with_a_hole_and_a_way_that_is_shut_are_both_named() -> None:
    yes, no = Outcome(Answer.REACHED, 0.2), Outcome(Answer.REFUSED, 0.1)
    one, two, three = place("n1", "dev", 1), place("n2", "dev", 2), place("n1", "prod", 3)
    seen = {
        (one, two): matrix.Cell(yes, no),
        (two, one): matrix.Cell(yes, yes),
        (one, three): matrix.Cell(yes, no),
        (three, one): matrix.Cell(no, no),
    }
    assert matrix.unexpected(seen, lambda source, target: source == target) == [(one, two), (one, three)]


@pytest.mark.parametrize("name", ["", ".", "..", "../../../etc", "a/b", "-"])
def test_down_removes_nothing_under_what_is_no_name(name: str) -> None:
    with pytest.raises(BadInput, match="is no name for a lab"):
        down.down(name)


@pytest.mark.parametrize(
    ("uids", "pids", "is_node"),
    [("0 0 0 0", "700 1", True), ("0 0 0 0", "700", False), ("1000 1000 1000 1000", "700 1", False),
     ("1000 0 0 0", "700 1", False)],
)  # fmt: skip
def test_only_a_process_of_roots_is_taken_for_a_node(uids: str, pids: str, is_node: bool) -> None:
    assert processes.is_a_node(f"Name:\tx\nUid:\t{uids}\nNSpid:\t{pids}\n") is is_node
