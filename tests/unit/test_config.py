"""config.yaml: what is accepted, and what is said of everything else."""

from __future__ import annotations

import json
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.config_texts import HEAD, network, told

from hedgerow.config.load import DEFAULT_NETWORKS, check, check_file, load
from hedgerow.config.problem import ConfigProblems
from hedgerow.errors import BadInput
from hedgerow.model.network import Allow, ClusterSpec, NetworkName, NetworkSpec, VtepSpec

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"


def test_the_labs_file_is_read_whole() -> None:
    assert load(EXAMPLES / "lab.yaml") == ClusterSpec(
        enable=True,
        mtu_bytes=1420,
        vtep=VtepSpec(subnet=IPv4Network("44.128.0.0/20")),
        networks=(
            NetworkSpec(name=NetworkName("dcos-1"), subnet=IPv4Network("9.0.0.0/8"), prefix=24),
            NetworkSpec(name=NetworkName("dev"), subnet=IPv4Network("10.64.0.0/12"), prefix=24),
            NetworkSpec(name=NetworkName("prod"), subnet=IPv4Network("10.80.0.0/14"), prefix=24),
        ),
    )


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_has_no_problem_and_no_warning(path: Path) -> None:
    checked = check_file(path)
    assert (checked.problems, checked.warnings) == ((), ())


@pytest.mark.parametrize(
    ("version", "names", "mtu"),
    [
        ("1.8", ["dcos"], 9001),
        ("1.11", ["dcos", "dcos-1", "dcos6"], 1420),
        ("2.2", ["dcos", "dcos6", "payments"], 1420),
    ],
)
def test_a_whole_config_yaml_of_dcos_is_accepted(version: str, names: list[str], mtu: int) -> None:
    checked = check_file(HERE / "dcos" / f"config-{version}.yaml")
    assert (checked.problems, checked.warnings) == ((), ())
    assert checked.spec is not None
    assert [spec.name for spec in checked.spec.networks] == names
    assert checked.spec.mtu_bytes == mtu


def test_a_file_that_says_nothing_of_networks_has_the_two_of_dcos() -> None:
    spec = load("bootstrap_url: http://10.0.0.5\n")
    assert spec.networks == DEFAULT_NETWORKS
    assert spec == load(EXAMPLES / "defaults.yaml")


def test_json_text_means_the_same_as_the_mapping() -> None:
    text = '{"vtep_subnet": "44.128.0.0/20", "vtep_mac_oui": "70:B3:D5:00:00:00", "overlays": '
    text += '[{"name": "dev", "subnet": "10.64.0.0/12", "prefix": 24}]}'
    mapping = load("dcos_overlay_network: " + text)
    assert load(f"dcos_overlay_network: '{text}'") == mapping
    assert load("dcos_overlay_network: |\n  " + text.replace(", ", ",\n  ")) == mapping
    assert load("dcos_overlay_network: >\n  " + text.replace(", ", ",\n  ")) == mapping


@pytest.mark.parametrize("indent", [None, 2, "\t"])
def test_json_text_may_be_written_in_any_way_that_json_allows(indent: int | str | None) -> None:
    value = {
        "vtep_subnet": "44.128.0.0/20",
        "vtep_mac_oui": "70:B3:D5:00:00:00",
        "overlays": [{"name": "dev", "subnet": "10.64.0.0/12", "prefix": 24, "enabled": False, "allow": []}],
    }
    text = json.dumps(value, indent=indent, separators=(",", ":") if indent is None else None)
    quoted = json.dumps({"dcos_overlay_network": text})
    assert load(quoted).networks[0].name == "dev"


def test_what_other_sections_hold_is_not_looked_at() -> None:
    text = "checks: &c {on: off, when: 12:30}\nmore: {<<: *c, again: [*c, *c]}\n"
    assert check(text + network(), "config.yaml").problems == ()


def test_numbers_and_truth_values_may_stand_in_quotes_as_templates_write_them() -> None:
    text = "dcos_overlay_enable: 'false'\ndcos_overlay_mtu: '1400'\n" + network(prefix="'26'", enabled="'true'")
    spec = load(text)
    assert (spec.enable, spec.mtu_bytes, spec.networks[0].prefix, spec.networks[0].enabled) == (False, 1400, 26, True)


@pytest.mark.parametrize(("allow", "means"), [("-", ()), ("[]", ()), ("[web]", ("web",))])
def test_allow_absent_and_empty_mean_nobody(allow: str, means: tuple[str, ...]) -> None:
    other = "  - {name: web, subnet: 10.80.0.0/16, prefix: 24}\n"
    assert load(network(allow=allow) + other).networks[0].allow == tuple(Allow(NetworkName(name)) for name in means)


def test_a_block_may_be_as_large_as_the_subnet() -> None:
    assert load(network(prefix="12")).networks[0].prefix == 12


@pytest.mark.parametrize("name", ["a", "dcos-1", "a_b", "'0'", "x" * 63, "'123'"])
def test_a_name_may_be(name: str) -> None:
    assert load(network(name=name)).networks[0].name == name.strip("'")


def test_vtep_mtu_and_oui_are_taken() -> None:
    text = network().replace("70:B3:D5", "02:48:AA") + "  vtep_mtu: 1450\n"
    assert load(text).vtep == VtepSpec(
        subnet=IPv4Network("44.128.0.0/20"),
        subnet6=IPv6Network("fd01:a::/64"),
        mac_oui=b"\x02\x48\xaa",
        mtu_bytes=1450,
    )


@pytest.mark.parametrize("key", ["renamed_from", "encryption"])
def test_a_key_that_is_decided_and_not_built_is_refused(key: str) -> None:
    (line,) = told(network(**{key: "[]"}))
    assert "not yet" in line


def test_all_problems_of_a_file_come_at_once_in_the_order_of_their_lines() -> None:
    text = HEAD.replace("44.128.0.0/20", "44.128.0.1/20") + (
        "  - name: Dev\n    subnet: 9.0.0.0/8\n    prefix: 6\n    colour: red\n"
        "  - name: prod\n    subnet: 9.1.0.0/16\n    prefix: 24\n    allow: [devv]\n    name: two\n"
    )
    with pytest.raises(ConfigProblems) as raised:
        load(text)
    found = [(problem.line, problem.path.rpartition(".")[2]) for problem in raised.value.problems]
    assert found == [
        (2, "vtep_subnet"),
        (6, "name"),
        (8, "prefix"),
        (9, "colour"),
        (11, "subnet"),
        (13, "allow[0]"),
        (14, "name"),
    ]
    assert str(raised.value).count("\n") == len(found) - 1
    assert raised.value.exit_code == 2


def test_a_top_level_key_that_is_nearly_ours_is_warned_of_and_others_are_not() -> None:
    checked = check("dcos_overlay_enabled: false\ndcos_net_watchdog: true\n" + network(), "config.yaml")
    assert checked.problems == ()
    assert [str(warning) for warning in checked.warnings] == [
        "config.yaml:1: dcos_overlay_enabled: false: not a key of ours, so it is not read; "
        "did you mean dcos_overlay_enable?"
    ]


def test_a_file_of_more_than_a_mebibyte_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(network() + "#" * (1 << 20))
    with pytest.raises(ConfigProblems, match="bytes are too many; a file may have 1048576"):
        load(path)


def test_a_file_that_is_not_utf_8_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(BadInput, match=f"{path}:2: byte 0xff is no UTF-8"):
        load(path)


def test_a_file_that_is_not_there_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="No such file"):
        load(tmp_path / "none.yaml")


@given(st.lists(st.tuples(st.integers(0, 2**16 - 1), st.integers(16, 28)), min_size=1, max_size=12))
def test_an_overlap_is_found_exactly_where_two_ranges_overlap(drawn: list[tuple[int, int]]) -> None:
    ranges = [IPv4Network(((10 << 24) + (number << 8), length), strict=False) for number, length in drawn]
    lines = [f"  - {{name: n{n}, subnet: {subnet}, prefix: 28}}\n" for n, subnet in enumerate(ranges)]
    slow = any(one.overlaps(other) for n, one in enumerate(ranges) for other in ranges[:n])
    assert bool(told(HEAD + "".join(lines))) == slow


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=12)
        | st.sampled_from(["9.0.0.0/8", "dev"]),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["name", "subnet", "prefix", "allow", "overlays", "vtep_subnet", "x"]),
                inner,
                max_size=5,
            )
        ),
        max_leaves=25,
    )
)
def test_whatever_stands_there_is_a_spec_or_problems(value: object) -> None:
    import yaml

    text = yaml.safe_dump({"dcos_overlay_network": value})
    checked = check(text, "config.yaml")
    assert (checked.spec is None) == bool(checked.problems)
