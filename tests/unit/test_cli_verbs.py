"""The verbs that read the API and config.yaml, as a person runs them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from unit.controller_stub import Stub, controller_stub

from hedgerow.cli.main import main

EXAMPLES = Path(__file__).parents[2] / "examples"

NETWORK = {
    "name": "dev",
    "id": "0" * 32,
    "vni": 70123,
    "gateway": "169.254.64.2",
    "subnet": "10.64.0.0/12",
    "prefix": 24,
    "subnet6": None,
    "prefix6": None,
    "enabled": True,
    "internal": False,
    "allow": ["prod"],
    "isolated": False,
    "rules": None,
    "attach": "anyone",
    "agents": None,
    "hosts": "allow",
    "host_services": [],
    "reaches": ["prod"],
    "prefixes": [{"agent": "n1", "block": "10.64.0.0/24"}],
    "endpoints": 2,
}
PROD = NETWORK | {
    "name": "prod",
    "subnet": "10.80.0.0/14",
    "allow": [],
    "rules": [],
    "reaches": ["dev"],
    "prefixes": [],
    "endpoints": 0,
}
AGENT = {
    "name": "n1",
    "id": "a" * 32,
    "underlay": "192.168.78.1",
    "addresses": ["192.168.78.1", "fd78::1"],
    "incarnation": 1,
    "connected": True,
    "applied": "1.9",
    "way": "wire",
    "vtep": {"ip": "44.128.0.1", "mac": "70:b3:d5:80:00:01", "ip6": None},
    "prefixes": [{"network": "dev", "block": "10.64.0.0/24"}],
    "faults": [],
    "endpoints": 2,
}
ENDPOINT = {
    "id": "cni/0123456789abcdef/eth0",
    "agent": "n1",
    "network": "dev",
    "address": "10.64.0.1",
    "mac": "02:48:0a:40:00:01",
    "engine": "cni",
    "container": "0123456789abcdef",
    "ifname": "eth0",
    "name": "web",
}


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    with controller_stub() as running:
        monkeypatch.setenv("HEDGEROW_API", running.url)
        monkeypatch.setenv("HEDGEROW_TOKEN", "secret")
        running.answers |= {
            "GET /v1/networks": (200, {"revision": "1.9", "networks": [NETWORK, PROD]}),
            "GET /v1/networks/dev": (200, NETWORK),
            "GET /v1/agents": (200, {"revision": "1.9", "agents": [AGENT]}),
            "GET /v1/agents/n1": (200, AGENT),
            "GET /v1/endpoints": (200, {"revision": "1.9", "endpoints": [ENDPOINT, ENDPOINT | {"network": "prod"}]}),
            "GET /v1/endpoints/10.64.0.1": (200, ENDPOINT),
        }
        yield running


def run(words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = main(words.split())
    told = capsys.readouterr()
    return code, told.out, told.err


@pytest.mark.usefixtures("stub")
@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (
            "network ls",
            "NETWORK  SUBNET        BLOCK  ENDPOINTS  REACHES  INSIDE    INTERNAL  ENABLED\n"
            "dev      10.64.0.0/12  /24    2          prod     -         no        yes\n"
            "prod     10.80.0.0/14  /24    0          dev      isolated  no        yes\n",
        ),
        (
            "agent ls",
            "AGENT  STATE  UNDERLAY      ENDPOINTS  WAY   APPLIED  FAULTS\n"
            "n1     ok     192.168.78.1  2          wire  1.9      -\n",
        ),
        (
            "endpoint ls --network dev",
            "ADDRESS    NETWORK  AGENT  ENGINE  CONTAINER     NAME\n"
            "10.64.0.1  dev      n1     cni     0123456789ab  web\n",
        ),
        ("endpoint show 10.64.0.1 -o name", "cni/0123456789abcdef/eth0\n"),
        ("networks ls -o name", "dev\nprod\n"),
    ],
)
def test_what_a_verb_prints(words: str, printed: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words, capsys) == (0, printed, "")


@pytest.mark.usefixtures("stub")
@pytest.mark.parametrize(
    ("words", "key", "record"),
    [("network show dev", "network", NETWORK), ("agent show n1", "agent", AGENT)],
)
def test_show_has_the_whole_record_in_json(
    words: str, key: str, record: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(f"{words} -o json", capsys)
    assert (code, json.loads(out)) == (0, {"version": 1, key: record})


@pytest.mark.usefixtures("stub")
def test_show_tells_who_has_which_block(capsys: pytest.CaptureFixture[str]) -> None:
    assert "prefixes   n1:10.64.0.0/24\n" in run("network show dev", capsys)[1]
    assert "vtep         44.128.0.1,70:b3:d5:80:00:01\n" in run("agent show n1", capsys)[1]


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"connected": False}, "silent"),
        ({"applied": None}, "joining"),
        ({"faults": [{"row": "link hr-1", "reason": "no such device", "since_s": 1.0}]}, "faults"),
    ],
)
def test_an_agent_that_is_not_well_says_so_in_one_word(
    stub: Stub, changes: dict[str, object], state: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.answers["GET /v1/agents"] = (200, {"agents": [AGENT | changes]})
    assert run("agent ls", capsys)[1].splitlines()[1].split()[1] == state


def test_drops_are_listed_most_first_and_silent_agents_are_trouble(
    stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    drop = {"agent": "n1", "network": "dev", "reason": "isolated", "packets": 3, "bytes": 180}
    more = drop | {"reason": "source_address", "packets": 70}
    stub.answers["GET /v1/drops"] = (200, {"drops": [drop, more], "silent": []})
    code, out, err = run("drops", capsys)
    assert (code, err) == (0, "")
    assert [line.split()[2] for line in out.splitlines()] == ["REASON", "source_address", "isolated"]
    stub.answers["GET /v1/drops"] = (200, {"drops": [drop], "silent": ["n3"]})
    code, out, err = run("drops -o json", capsys)
    assert (code, json.loads(out)["silent"]) == (3, ["n3"])
    assert "n3" in err


def test_status_is_one_line_when_all_is_well_and_a_line_more_for_each_trouble(
    stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = {"revision": "1.9", "agents": 3, "connected": 3, "networks": 3, "endpoints": 18}
    stub.answers["GET /v1/status"] = (200, {"ok": True, "troubles": []} | counts)
    fine = "fine: 3 of 3 agents connected, 3 networks, 18 endpoints, revision 1.9\n"
    assert run("status", capsys) == (0, fine, "")
    trouble = {"subject": "n3", "message": "silent for 42 s", "next": "hedgerow agent show n3"}
    stub.answers["GET /v1/status"] = (200, {"ok": False, "troubles": [trouble]} | counts | {"connected": 2})
    code, out, _ = run("status", capsys)
    assert code == 3
    assert out.splitlines() == [
        "TROUBLE: 2 of 3 agents connected, 3 networks, 18 endpoints, revision 1.9",
        "TROUBLE  n3  silent for 42 s  next: hedgerow agent show n3",
    ]


def test_a_good_file_is_told_with_what_it_makes(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(f"config check {EXAMPLES / 'walls.yaml'}", capsys)
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == f"{EXAMPLES / 'walls.yaml'}: fine, 5 networks"
    reaches = {line.split()[0]: line.split()[4] for line in out.splitlines()[3:]}
    assert reaches == {
        "web": "cache,database",
        "cache": "web",
        "database": "-",
        "monitoring": "web",
        "build": "-",
    }


def test_every_problem_is_on_stdout_and_the_code_is_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("dcos_overlay_enabled: 1\ndcos_overlay_mtu: 3\ndcos_overlay_network: []\n")
    code, out, err = run(f"config check {path}", capsys)
    assert code == 2
    assert [line.split(": ")[0] for line in out.splitlines()] == [f"{path}:2", f"{path}:3"]
    assert err.startswith(f"{path}:1: dcos_overlay_enabled: 1: ")
    code, out, _ = run(f"config check -o json {path}", capsys)
    told = json.loads(out)
    assert code == 2
    assert told["problems"][0] == {
        "file": str(path),
        "line": 2,
        "path": "dcos_overlay_mtu",
        "value": "3",
        "message": "out of range",
        "cure": "write a number from 552 to 65535",
    }
    assert len(told["warnings"]) == 1


def test_agent_with_a_config_is_the_daemon_and_without_anything_its_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[Path] = []
    monkeypatch.setattr("hedgerow.cli.agent.run", started.append)
    assert run("agent --config /etc/hedgerow/agent.yaml", capsys) == (0, "", "")
    assert started == [Path("/etc/hedgerow/agent.yaml")]
    assert "Usage: hedgerow agent" in run("agent", capsys)[1]


def test_apply_sends_the_file_waits_for_the_agents_and_names_what_changed(
    stub: Stub, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("dcos_overlay_enable: true\n")
    changed = [{"network": "dev", "key": "rules"}]
    stub.answers["PUT /v1/config"] = 200, {"revision": "1.9", "changed": changed, "warnings": []}
    assert run(f"apply {file}", capsys) == (0, "dev: rules\nrevision 1.9: 1 changed\n", "")
    (words, headers, body), (waited, _, _) = stub.asked
    assert (words, body) == (f"PUT /v1/config?file={str(file).replace('/', '%2F')}", b"dcos_overlay_enable: true\n")
    assert headers["content-type"].startswith("text/plain")
    assert waited == "GET /v1/agents?applied=1.9&wait=10s"
    assert run(f"apply {file} -o name", capsys) == (0, "dev.rules\n", "")
    code, out, _ = run(f"apply {file} -o json", capsys)
    assert (code, json.loads(out)["behind"]) == (0, [])


def test_apply_names_agents_that_are_behind(stub: Stub, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("")
    stub.answers["PUT /v1/config"] = 200, {"revision": "1.10", "changed": [], "warnings": ["config.yaml:1: odd"]}
    code, out, err = run(f"apply {file} --wait 0s", capsys)
    assert (code, out) == (3, "revision 1.10: nothing changed\n")
    assert err == "config.yaml:1: odd (a warning)\nnot applied yet: n1; see: hedgerow agent ls\n"


def test_apply_prints_every_problem_of_a_file_that_is_refused(
    stub: Stub, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text("")
    stub.answers["PUT /v1/config"] = 400, {"message": "config.yaml:1: one\nconfig.yaml:2: two", "cure": ""}
    told = "hedgerow: config.yaml:1: one\nconfig.yaml:2: two\n"
    assert run(f"apply {tmp_path}/config.yaml", capsys) == (2, "", told)
    assert run(f"apply {tmp_path}/none.yaml", capsys)[0] == 2


CAN = {
    "allowed": True,
    "source": "/front of dev",
    "destination": "/api of dev",
    "protocol": "tcp",
    "port": 8080,
    "rule": "dev/front-to-api",
    "reason": "dev/front-to-api opens 8080/tcp",
    "where": "dev.rules[0]",
}


@pytest.mark.parametrize(
    ("changed", "code", "printed"),
    [
        ({}, 0, "yes: /front of dev to /api of dev 8080/tcp: dev/front-to-api opens 8080/tcp"),
        (
            {"protocol": "icmp", "port": None, "reason": "dev/a opens icmp"},
            0,
            "yes: /front of dev to /api of dev icmp: dev/a opens icmp",
        ),
        (
            {"allowed": False, "protocol": "", "port": None, "reason": "no rule of dev opens it"},
            5,
            "no: /front of dev to /api of dev: no rule of dev opens it",
        ),
    ],
)
def test_can_says_yes_or_no_and_where_that_is_written(
    changed: dict[str, object], code: int, printed: str, stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.answers["GET /v1/can"] = 200, CAN | changed
    assert run("can /front /api:8080", capsys) == (code, f"{printed} (config.yaml: dev.rules[0])\n", "")
    assert stub.asked[0][0] == "GET /v1/can?from=%2Ffront&to=%2Fapi%3A8080"
    assert json.loads(run("can /front /api:8080 -o json", capsys)[1]) == {"version": 1, "can": CAN | changed}
