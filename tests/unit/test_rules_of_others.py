"""How an agent tells its own rules from what somebody made of them, without asking nft more often than it must."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import pytest

from hedgerow.agent.datapath import docker_user
from hedgerow.agent.datapath.docker_user import RULES, DockerUser
from hedgerow.agent.datapath.firewall import Firewall
from hedgerow.agent.objects import FIREWALL, Kind, Passed, Ruleset
from hedgerow.errors import HedgerowError
from hedgerow.kernel import commands, iptables, netlink, nft
from hedgerow.reconcile.plan import Key, Set

WANTED = Ruleset("table inet hedgerow { }\n")


@dataclass
class Kernel:
    """Its tables, as one text; `meanwhile` are changes of others that happen right after a table was written."""

    table: str | None = None
    number: int = 1
    asked: int = 0
    meanwhile: list[str] = field(default_factory=list)

    def change(self, table: str | None) -> None:
        self.table, self.number = table, self.number + 1

    def load(self, text: str) -> None:
        self.change(f"shown: {text}")
        if self.meanwhile:
            self.change(self.meanwhile.pop())

    def listing(self, family: str, name: str, *, without: tuple[str, ...]) -> str | None:
        self.asked += 1
        return self.table

    def generation(self) -> int:
        return self.number


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel()
    for name in ("load", "listing", "generation"):
        monkeypatch.setattr(nft, name, getattr(kernel, name))
    return kernel


def firewall() -> Firewall:
    return Firewall(lambda: "")


def write(target: Firewall) -> dict[Key, Exception]:
    return dict(target.apply([Set(FIREWALL, None, WANTED)]))


def test_while_nobody_changed_anything_nft_is_not_asked(kernel: Kernel) -> None:
    target = firewall()
    assert write(target) == {}
    assert target.read() == {FIREWALL: WANTED}
    asked = kernel.asked
    for _ in range(5):
        assert target.read() == {FIREWALL: WANTED}
    assert kernel.asked == asked


def test_a_change_of_others_tables_is_looked_at_once(kernel: Kernel) -> None:
    target = firewall()
    write(target)
    kernel.change(kernel.table)
    assert target.read() == target.read() == {FIREWALL: WANTED}
    assert kernel.asked == 2


@pytest.mark.parametrize(("made", "seen"), [(None, {}), ("other", {FIREWALL: Ruleset("")})], ids=["gone", "changed"])
def test_a_table_that_somebody_changed_is_no_more_ours(kernel: Kernel, made: str | None, seen: object) -> None:
    target = firewall()
    write(target)
    kernel.change(made)
    assert target.read() == seen


def test_what_somebody_changed_while_it_was_written_is_not_taken_for_ours(kernel: Kernel) -> None:
    target = firewall()
    kernel.meanwhile = ["emptied", "emptied"]
    assert write(target) == {}
    assert kernel.table == f"shown: {WANTED.text}"
    assert target.read() == {FIREWALL: WANTED}


def test_who_never_stops_changing_rules_is_a_fault(kernel: Kernel) -> None:
    target = firewall()
    kernel.meanwhile = ["emptied"] * 100
    assert isinstance(write(target)[FIREWALL], HedgerowError)
    assert target.read() == {FIREWALL: Ruleset("")}


def test_an_agent_that_starts_takes_no_table_for_its_own(kernel: Kernel) -> None:
    kernel.change("somebody's")
    assert firewall().read() == {FIREWALL: Ruleset("")}


def _message(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 20 + len(body), kind, 0, 0, 0) + bytes(4) + body


def test_the_end_of_a_transaction_says_who_it_was() -> None:
    end = _message(0x0A0F, netlink.attribute(2, (812).to_bytes(4)) + netlink.text(3, "firewalld"))
    change = nft.change(_message(0x0A00, netlink.text(1, "hedgerow")) + end)
    assert (change.program, change.pid) == ("firewalld", 812)
    assert nft.change(_message(0x0A00, netlink.text(1, "hedgerow"))).program == ""


def test_what_packets_put_into_sets_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    filled = "9.0.1.1 ct count over 8192,\n\t\t\t     9.0.1.2 ct count over 8192"
    sets = (
        f"\tset {name} {{\n\t\ttype ipv4_addr\n\t\telements = {{ {elements} }}\n\t}}\n"
        for name, elements in (("flows4", filled), ("hosts", "10.0.0.1"))
    )
    shown = "table inet hedgerow {\n" + "\n".join(sets) + "}\n"
    monkeypatch.setattr(commands, "run", lambda *_, **__: shown)
    listed = nft.listing("inet", "hedgerow", without=("published", "flows"))
    assert listed is not None
    assert "ct count" not in listed
    assert "elements = { 10.0.0.1 }" in listed


@dataclass
class Chain:
    """Docker's, over nftables unless `is_legacy`. None: Docker made none."""

    rules: list[str] | None
    is_legacy: bool = False
    number: int = 1
    asked: int = 0

    def listed(self, family: str, chain: str) -> list[str] | None:
        self.asked += 1
        return list(self.rules) if self.rules is not None and family == "ip" else None

    def insert(self, family: str, chain: str, rule: str) -> None:
        assert self.rules is not None
        self.rules.insert(0, rule)

    def delete(self, family: str, chain: str, rule: str) -> None:
        assert self.rules is not None
        self.rules.remove(rule)


def docker(monkeypatch: pytest.MonkeyPatch, chain: Chain) -> DockerUser:
    monkeypatch.setattr(iptables, "has_program", lambda family: True)
    monkeypatch.setattr(iptables, "is_legacy", lambda family: chain.is_legacy)
    monkeypatch.setattr(iptables, "has_legacy_tables", lambda family: chain.is_legacy)
    monkeypatch.setattr(iptables, "rules", chain.listed)
    monkeypatch.setattr(iptables, "insert", chain.insert)
    monkeypatch.setattr(iptables, "delete", chain.delete)
    monkeypatch.setattr(docker_user.nft, "generation", lambda: chain.number)
    return DockerUser()


KEYS = [Key(Kind.DOCKER_USER, family) for family in ("ip", "ip6")]
MET = dict.fromkeys(KEYS, Passed())


def set_all(target: DockerUser) -> None:
    assert target.apply([Set(key, None, Passed()) for key in KEYS]) == {}


def test_where_docker_has_no_chain_there_is_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    target = docker(monkeypatch, chain := Chain(None))
    assert target.read() == MET
    set_all(target)
    assert chain.rules is None


def test_our_two_rules_stand_before_the_users_own_and_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    users = ["-i eth0 -j DROP", "-j RETURN"]
    stale = "-i hr-host -m comment --comment hedgerow -j ACCEPT"
    target = docker(monkeypatch, chain := Chain([RULES[0], *users, stale, RULES[0]]))
    assert Key(Kind.DOCKER_USER, "ip") not in target.read()
    set_all(target)
    assert chain.rules is not None
    assert sorted(chain.rules) == sorted([*RULES, *users])
    assert [rule for rule in chain.rules if rule in users] == users
    assert target.read() == MET


def test_iptables_over_nftables_is_asked_only_after_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    target = docker(monkeypatch, chain := Chain(list(RULES)))
    for _ in range(5):
        assert target.read() == MET
    assert chain.asked == 2
    chain.rules, chain.number = [], 2
    assert target.read() == {KEYS[1]: Passed()}


def test_the_old_iptables_is_asked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    target = docker(monkeypatch, chain := Chain(list(RULES), is_legacy=True))
    assert target.read() == MET
    chain.rules = []
    assert target.read() == {KEYS[1]: Passed()}
