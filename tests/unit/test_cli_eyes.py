"""`hedgerow why` and `hedgerow drops`, as a person reads them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from unit.controller_stub import Stub, controller_stub

from hedgerow.cli.main import main

SAMPLE = {
    "time_s": 1795579856.174,
    "agent": "n1",
    "network": "dev",
    "reason": "isolated",
    "protocol": "tcp",
    "source": {"address": "10.64.0.1", "port": 40000, "name": "web", "network": "dev", "agent": "n1"},
    "destination": {"address": "fd00::9", "port": 80, "name": "", "network": "", "agent": ""},
    "packets": 3,
}
END = {"called": "web", "address": "10.64.0.1", "network": "dev", "agent": "n1"}
STAGES = [
    {"state": "ok", "where": "n1", "what": "web leaves by eth0"},
    {"state": "stop", "where": "n1", "what": "neither dev nor prod allows it"},
    {"state": "none", "where": "n2", "what": "leads 10.80.0.1 to hr-1"},
]
CAUSE = {
    "place": "wall",
    "cause": "neither dev nor prod allows it",
    "thing": "config.yaml, prod.allow",
    "line": 14,
    "change": "add it",
    "by_policy": True,
}
WHY: dict[str, Any] = {
    "revision": "1.9",
    "works": False,
    "port": "80/tcp",
    "source": END,
    "destination": END | {"called": "db"},
    "stages": STAGES,
    "cause": CAUSE,
    "notes": [],
    "probe": None,
    "trace": [],
}


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    with controller_stub() as running:
        monkeypatch.setenv("HEDGEROW_API", running.url)
        monkeypatch.setenv("HEDGEROW_TOKEN", "secret")
        monkeypatch.setenv("TZ", "UTC")
        running.answers["GET /v1/why"] = (200, WHY)
        running.answers["GET /v1/drops/samples"] = (200, 2 * (json.dumps(SAMPLE).encode() + b"\n"))
        yield running


def run(words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = main(words.split())
    told = capsys.readouterr()
    return code, told.out, told.err


def test_the_places_the_cause_and_what_would_change_it(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("why web db:80", capsys) == (
        5,
        " 1 ok    n1  web leaves by eth0\n"
        " 2 STOP  n1  neither dev nor prod allows it\n"
        " 3 -     n2  leads 10.80.0.1 to hr-1\n"
        "cause   neither dev nor prod allows it\n"
        "where   config.yaml, prod.allow, line 14\n"
        "change  add it\n",
        "",
    )
    assert stub.asked[0][0] == "GET /v1/why?from=web&to=db&protocol=tcp&port=80"


def test_what_is_broken_ends_otherwise_than_what_is_refused(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["GET /v1/why"] = (200, WHY | {"cause": CAUSE | {"by_policy": False, "line": 0}})
    code, out, _ = run("why web db", capsys)
    assert (code, "where   config.yaml, prod.allow\n" in out) == (3, True)
    assert stub.asked[0][0].endswith("protocol=icmp&port=0")
    assert run("why web db -o name", capsys)[1] == "wall\n"


def test_what_works_says_so(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    works = {"works": True, "cause": None, "stages": STAGES[:1], "notes": ["a row is odd, and it passes"]}
    stub.answers["GET /v1/why"] = (200, WHY | works)
    told = " 1 ok    n1  web leaves by eth0\nworks   web reaches db, 80/tcp\nnote    a row is odd, and it passes\n"
    assert run("why web db:80", capsys) == (0, told, "")
    assert json.loads(run("why web db:80 -o json", capsys)[1])["version"] == 1


def test_dropped_packets_are_a_line_each(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run("drops --since 1m --from web --agent n1", capsys)
    first, second = out.splitlines()
    assert (code, first == second) == (0, True)
    assert first.split()[1:] == ["web.dev", "->", "[fd00::9]:80/tcp", "isolated", "x3", "on", "n1"]
    assert stub.asked[0][0] == "GET /v1/drops/samples?follow=false&from=web&since=1m&agent=n1"
    assert "web.dev(10.64.0.1)" in run("drops --since 1m -o wide", capsys)[1]


def test_a_program_reads_an_object_a_line(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run("drops -f -o json", capsys)
    assert (code, [json.loads(line) for line in out.splitlines()]) == (0, 2 * [{"version": 1, **SAMPLE}])
    assert stub.asked[0][0] == "GET /v1/drops/samples?follow=true&since=0s"


def test_counters_can_be_narrowed_to_a_reason(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"agent": "n1", "network": "dev", "reason": "isolated", "packets": 3, "bytes": 180}
    stub.answers["GET /v1/drops"] = (200, {"drops": [row, row | {"reason": "closed"}], "silent": []})
    assert run("drops --reason closed -o name", capsys) == (0, "closed\n", "")
