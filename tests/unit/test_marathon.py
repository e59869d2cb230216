from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.marathon_client import COMMON, FORMS, NETWORKS, PRINTED

from hedgerow.apps.launch import launch_of
from hedgerow.apps.marathon import Reading, absolute, definition, read_app
from hedgerow.apps.records import App
from hedgerow.apps.shape import BadApp, NotJson
from hedgerow.model.app import Engine, InstanceId
from hedgerow.wire.codec import from_json, to_json

VERSION = "2026-01-02T03:04:05.678Z"
DOCKER = {"type": "DOCKER", "docker": {"image": "nginx"}}
PLAIN: dict[str, Any] = {"id": "a", "cmd": "x", "networks": NETWORKS}


def read(body: Any) -> Reading:
    return read_app(json.dumps(body).encode(), VERSION)


def faults(body: Any) -> dict[str, str]:
    with pytest.raises(BadApp) as caught:
        read(body)
    found: dict[str, str] = {}
    for each in caught.value.faults:
        found[each.path] = f"{found[each.path]}; {each.message}" if each.path in found else each.message
    return found


@pytest.mark.parametrize(
    ("form", "engine"),
    [
        ("as printed", Engine.DOCKER),
        ("with network", Engine.DOCKER),
        ("new form", Engine.DOCKER),
        ("Mesos with the image", Engine.PODMAN),
        ("no container", Engine.HOST),
    ],
)
def test_every_form_of_the_example_comes_to_the_same_command_network_and_size(form: str, engine: Engine) -> None:
    app = read(FORMS[form]).app
    launch = launch_of(app, InstanceId("task"), "n1", lambda: 2000)
    assert (launch.engine, launch.network) == (engine, "dcos-1")
    assert launch.command == ("/bin/sh", "-c", "env; ip -o addr; sleep 30")
    assert (launch.cpus, launch.memory_bytes) == (0.1, 64 << 20)
    assert (app.id, app.backoff_s, app.backoff_factor) == ("/my-networking", 5, 1.14472988585)


@pytest.mark.parametrize("form", FORMS)
def test_what_is_given_back_is_the_new_form_and_reads_as_the_same_app(form: str) -> None:
    app = read(FORMS[form]).app
    given_back = definition(app)
    assert given_back["networks"] == NETWORKS
    assert "ipAddress" not in given_back
    assert not {"network", "portMappings"} & set(given_back["container"].get("docker", {}))
    assert read(given_back | {"version": VERSION}).app == app


@pytest.mark.parametrize("form", FORMS)
def test_an_app_is_the_same_after_the_store(form: str) -> None:
    app = read(FORMS[form]).app
    assert from_json(to_json(app), App) == app


def test_keys_that_marathon_does_not_have_are_ignored_and_named() -> None:
    reading = read(PRINTED)
    assert [each.container_port for each in reading.app.container.port_mappings] == [0]
    assert reading.warnings == (
        "/container/docker/portMappings(0)/host_port is not a key of Marathon: ignored",
        "/container/docker/portMappings(0)/container_port is not a key of Marathon: ignored",
    )


def test_network_inside_ip_address_is_taken_and_the_right_key_is_named() -> None:
    assert "/ipAddress/network is not a key of Marathon: taken for networkName" in read(FORMS["with network"]).warnings


def test_what_is_kept_without_effect_is_given_back_and_warned_of() -> None:
    reading = read(PLAIN | {"constraints": [["hostname", "UNIQUE"]], "acceptedResourceRoles": ["slave_public"]})
    assert definition(reading.app)["constraints"] == [["hostname", "UNIQUE"]]
    assert definition(reading.app)["acceptedResourceRoles"] == ["slave_public"]
    assert reading.warnings == ("/constraints is kept and has no effect yet",)


def test_all_faults_of_shape_are_named_at_once_in_marathons_words() -> None:
    body = {
        "id": "Upper",
        "instances": 0.1,
        "cpus": "x",
        "backoffFactor": 0.5,
        "container": {"docker": {"image": 1, "portMappings": [{}, {"containerPort": 65536, "networkNames": 3}]}},
    }
    assert faults(body) == {
        "/id": "error.pattern",
        "/instances": "error.expected.jsnumber",
        "/cpus": "error.expected.jsnumber",
        "/backoffFactor": "error.min",
        "/container/docker/image": "error.expected.jsstring",
        "/container/docker/portMappings(1)/containerPort": "error.max",
        "/container/docker/portMappings(1)/networkNames": "error.expected.jsarray",
    }


@pytest.mark.parametrize("body", [b"", b"  ", b"{", b'{"id": NaN}', b"[" * 100_000, b"\xff"])
def test_a_body_that_is_no_json_is_said_to_be_none(body: bytes) -> None:
    with pytest.raises(NotJson):
        read_app(body, VERSION)


@pytest.mark.parametrize(
    ("change", "path", "words"),
    [
        ({"id": "a/restart"}, "/id", "reserved keywords"),
        ({"id": "/"}, "/id", "must not be root"),
        ({"cmd": None}, "/", "must either contain one of"),
        ({"args": ["y"]}, "/", "must either contain one of"),
        ({"container": {}}, "/container/docker", "not defined"),
        ({"container": {"docker": {}}}, "/container/docker/image", "not defined"),
        ({"networks": [{"name": "a"}, {"name": "a"}]}, "/networks", "Duplicate networks"),
        ({"networks": [{"mode": "host", "name": "a"}]}, "/networks", "Host networks may not have names or labels"),
        ({"networks": [{"mode": "host"}, {"name": "a"}]}, "/networks", "single host network"),
        ({"networks": [{"mode": "container"}]}, "/networks", "Network name must be specified"),
        ({"networks": [{"name": "a"}, {"name": "b"}], "container": DOCKER}, "/", "single container network"),
        (
            {"networks": [{"name": "a"}, {"name": "b"}]},
            "/networks",
            "several networks in one app are not supported yet",
        ),
        ({"networks": [{"mode": "CONTAINER/BRIDGE"}]}, "/networks", "bridge networking is not supported yet"),
        ({"networks": None}, "/networks", "host networking is not supported yet"),
        ({"ipAddress": {}}, "/", "must not specify both networks and ipAddress"),
        ({"networks": None, "ipAddress": {}}, "/networks", "Network name must be specified"),
        ({"networks": None, "ipAddress": {"networkName": "a"}, "ports": [1]}, "/", "both an IP address and port"),
        ({"container": {"docker": {"image": "i", "network": "USER"}}}, "/", "container.docker.network and networks"),
        (
            {"container": {"type": "mesos", "docker": {"image": "i", "portMappings": [{}]}}},
            "/container/docker/portMappings",
            "must be empty",
        ),
        (
            {"container": {"portMappings": [{"name": "a"}, {"name": "a"}], "docker": {"image": "i"}}},
            "/container/portMappings",
            "Port names must be unique.",
        ),
        (
            {"container": {"portMappings": [{"networkNames": ["b"]}], "docker": {"image": "i"}}},
            "/container/portMappings(0)/networkNames(0)",
            "is not one of (dcos-1)",
        ),
        (
            {"container": {"portMappings": [{"hostPort": 80}, {"hostPort": 80}], "docker": {"image": "i"}}},
            "/container/portMappings",
            "Host ports must be unique.",
        ),
        (
            {"container": {"docker": {"image": "i", "privileged": True}}},
            "/container/docker/privileged",
            "not supported",
        ),
        ({"env": {"A": 1}}, "/env/A", "error.expected.jsstring"),
        ({"env": {"A": {"secret": "s"}}}, "/secrets", "not supported yet"),
        ({"instances": 1001}, "/instances", "error.max"),
    ],
)
def test_what_cannot_be_taken_is_refused_at_its_path(change: dict[str, Any], path: str, words: str) -> None:
    found = faults(PLAIN | change)
    assert words in found[path]


def test_a_null_is_the_same_as_nothing_and_names_of_a_closed_set_are_taken_in_any_case() -> None:
    body = COMMON | {
        "networks": [{"name": "dcos-1", "mode": "Container", "labels": None}],
        "container": {"type": "docker", "docker": {"image": "nginx"}, "portMappings": None},
        "env": None,
        "args": None,
    }
    assert read(body).app == read(FORMS["new form"]).app


def test_ports_of_an_old_definition_come_to_the_same_mappings_as_of_a_new_one() -> None:
    mapping = {"containerPort": 80, "name": "web", "protocol": "udp", "labels": {"VIP_0": "/web:80"}}
    old = {"id": "a", "cmd": "x", "container": {"docker": {"image": "i", "network": "user", "portMappings": [mapping]}}}
    new = {"id": "a", "cmd": "x", "container": {"docker": {"image": "i"}, "portMappings": [mapping]}}
    discovery = {"ports": [{"number": 80, "name": "web", "protocol": "udp", "labels": {"VIP_0": "/web:80"}}]}
    mesos = {"id": "a", "cmd": "x", "ipAddress": {"networkName": "n", "discovery": discovery}}
    apps = [
        read(old | {"ipAddress": {"networkName": "n"}}).app,
        read(new | {"networks": [{"name": "n"}]}).app,
        read(mesos).app,
    ]
    assert len({each.container.port_mappings[0].name for each in apps}) == 1
    assert apps[0].container.port_mappings == apps[1].container.port_mappings == apps[2].container.port_mappings


def test_an_app_without_ports_has_one_named_default_and_an_empty_list_stays_empty() -> None:
    assert [each.name for each in read(PLAIN).app.container.port_mappings] == ["default"]
    none = PLAIN | {"container": {"docker": {"image": "i"}, "portMappings": []}}
    assert read(none).app.container.port_mappings == ()


@pytest.mark.parametrize(
    ("path", "wanted"), [("a", "/a"), ("/a/", "/a"), ("//a//b", "/a/b"), ("a/../b", "/b"), ("../..", "/"), ("", "/")]
)
def test_an_id_is_made_absolute(path: str, wanted: str) -> None:
    assert absolute(path) == wanted


def test_the_environment_is_marathons() -> None:
    mappings = [{"containerPort": 80, "name": "http-api"}, {}]
    body = PLAIN | {
        "container": {"docker": {"image": "i"}, "portMappings": mappings},
        "labels": {"tier one": "1", "x" * 493: "too long a name"},
        "env": {"HOST": "own", "A": "b"},
    }
    ports = iter([80, 2000])
    found = dict(launch_of(read(body).app, InstanceId("a.1"), "n1", lambda: next(ports)).environment)
    assert found == {
        "MESOS_TASK_ID": "a.1",
        "MARATHON_APP_ID": "/a",
        "MARATHON_APP_VERSION": VERSION,
        "MARATHON_APP_DOCKER_IMAGE": "i",
        "MARATHON_APP_RESOURCE_CPUS": "1.0",
        "MARATHON_APP_RESOURCE_MEM": "128.0",
        "MARATHON_APP_RESOURCE_DISK": "0.0",
        "MARATHON_APP_RESOURCE_GPUS": "0",
        "MARATHON_APP_LABELS": "TIER_ONE",
        "MARATHON_APP_LABEL_TIER_ONE": "1",
        "PORT0": "80",
        "PORT_80": "80",
        "PORT_HTTP-API": "80",
        "PORT_HTTP_API": "80",
        "PORT1": "2000",
        "PORT_2000": "2000",
        "PORT": "2000",
        "PORTS": "2000",
        "HOST": "own",
        "MESOS_SANDBOX": "/mnt/mesos/sandbox",
        "A": "b",
    }


def test_a_host_port_is_what_the_environment_names_and_is_given_back() -> None:
    mappings = [
        {"containerPort": 80, "hostPort": 8080, "name": "web"},
        {"containerPort": 53, "hostPort": 0, "protocol": "udp,tcp"},
        {"hostPort": 0},
        {"containerPort": 9100},
        {},
    ]
    app = read(PLAIN | {"container": {"docker": {"image": "i"}, "portMappings": mappings}}).app
    launch = launch_of(app, InstanceId("a.1"), "n1", lambda: 2000, [8080, 31001, 31002, None, None])
    found = dict(launch.environment)
    assert {name: value for name, value in found.items() if name.startswith("PORT")} == {
        "PORT0": "8080",
        "PORT_80": "8080",
        "PORT_WEB": "8080",
        "PORT1": "31001",
        "PORT_53": "31001",
        "PORT2": "31002",
        "PORT_31002": "31002",
        "PORT3": "9100",
        "PORT_9100": "9100",
        "PORT4": "2000",
        "PORT_2000": "2000",
        "PORTS": "8080,31001,31002,2000",
        "PORT": "8080",
    }
    assert [str(port) for port in launch.ports] == [
        "8080->80/tcp",
        "31001->53/tcp",
        "31001->53/udp",
        "31002->31002/tcp",
    ]
    assert launch.host_ports == (8080, 31001, 31002)
    assert [each.get("hostPort") for each in definition(app)["container"]["portMappings"]] == [8080, 0, 0, None, None]


def test_args_are_handed_to_the_entry_point_of_an_image_and_are_the_command_without_one() -> None:
    args = {"id": "a", "args": ["sleep", "9"], "networks": NETWORKS}
    with_image = launch_of(read(args | {"container": DOCKER}).app, InstanceId("t"), "n1", lambda: 2000)
    without = launch_of(read(args).app, InstanceId("t"), "n1", lambda: 2000)
    assert (with_image.command, with_image.arguments) == (None, ("sleep", "9"))
    assert (without.command, without.arguments) == (("sleep", "9"), ())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["id", "cmd", "container", "docker", "image", "networks", "name", "ipAddress", "network", "portMappings", "env"]
    ) | st.text(max_size=3), inner, max_size=5),
    max_leaves=20,
)  # fmt: skip


@given(JSON)
def test_any_json_is_taken_or_refused_with_paths(body: Any) -> None:
    try:
        paths = [read(body).app.id]
    except BadApp as error:
        paths = [each.path for each in error.faults]
    assert paths
    assert all(path.startswith("/") for path in paths)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ('"mem": 1e999', "/mem"),
        ('"cpus": 1e300', "/cpus"),
        ('"taskKillGracePeriodSeconds": 99999999999999999999', "/taskKillGracePeriodSeconds"),
        ('"portDefinitions": [' + ", ".join(["{}"] * 70_000) + "]", "/portDefinitions"),
    ],
)
def test_numbers_that_no_container_can_have_do_not_get_as_far_as_the_scheduler(change: str, path: str) -> None:
    with pytest.raises(BadApp) as refused:
        read_app(f'{{"id": "x", "cmd": "x", {change}}}'.encode(), "v")
    assert path in {fault.path for fault in refused.value.faults}


def test_half_a_character_is_no_text() -> None:
    with pytest.raises(NotJson):
        read_app(rb'{"id": "x", "cmd": "x", "env": {"A": "\ud800"}}', "v")
