"""One fault in config.yaml, one line that names it: the whole line is the test."""

from __future__ import annotations

import pytest
from unit.config_texts import HEAD, network, told

ONE_FAULT = {
    "host bits": (network(subnet="9.0.0.1/8"), "7: OV[0].subnet: 9.0.0.1/8: host bits are set; write 9.0.0.0/8"),
    "host bits of IPv6": (
        network(subnet6="fd01:b::1/64", prefix6="80"),
        "9: OV[0].subnet6: fd01:b::1/64: host bits are set; write fd01:b::/64",
    ),
    "no prefix length": (
        network(subnet="9.0.0.0"),
        "7: OV[0].subnet: 9.0.0.0: address and prefix length are needed; write it as 9.0.0.0/24",
    ),
    "a netmask": (
        network(subnet="9.0.0.0/255.0.0.0"),
        "7: OV[0].subnet: 9.0.0.0/255.0.0.0: the prefix length must be a number; write 9.0.0.0/8",
    ),
    "IPv6 as subnet": (
        network(subnet="fd01:b::/64"),
        "7: OV[0].subnet: fd01:b::/64: an IPv4 network is needed, this is IPv6; write it under the key that ends in 6",
    ),
    "no network at all": (
        network(subnet="everything"),
        "7: OV[0].subnet: everything: not an IPv4 network; write address and prefix length, as 9.0.0.0/8",
    ),
    "prefix shorter than the subnet's": (
        network(prefix="8"),
        "8: OV[0].prefix: 8: a block of /8 does not fit into 10.64.0.0/12; write a number from 12 to 30",
    ),
    "prefix over 30": (
        network(prefix="31"),
        "8: OV[0].prefix: 31: a block must have at least two addresses to give out; write a number from 12 to 30",
    ),
    "prefix6 over 126": (
        network(subnet6="fd01:b::/64", prefix6="127"),
        "10: OV[0].prefix6: 127: a block must have at least two addresses to give out; write a number from 64 to 126",
    ),
    "prefix is no number": (
        network(prefix="many"),
        "8: OV[0].prefix: many: a whole number is needed; write a number from 0 to 32",
    ),
    "prefix is octal": (
        network(prefix="030"),
        "8: OV[0].prefix: 030: a number that begins with 0 can be read in two ways; write 30",
    ),
    "prefix is nothing": (
        network(prefix=""),
        "8: OV[0].prefix: nothing is written here; give it a value, or take the line out",
    ),
    "prefix missing": (
        network(prefix="-"),
        "7: OV[0].subnet: 10.64.0.0/12: prefix, the length of each agent's block, is missing; write prefix: 20",
    ),
    "subnet missing": (
        network(subnet="-", prefix="-"),
        "6: OV[0]: subnet is missing; write subnet: and prefix:",
    ),
    "subnet too small": (
        network(subnet="10.0.0.0/31"),
        "7: OV[0].subnet: 10.0.0.0/31: too small for containers; /30 is the smallest",
    ),
    "name missing": (network(name="-"), "6: OV[0]: name is missing; write name: and a word"),
    "reserved name": (
        network(name="host"),
        "6: OV[0].name: host: a reserved name: an engine or a command means something else by it; choose another",
    ),
    "capitals": (
        network(name="Dev"),
        "6: OV[0].name: Dev: a name is made of a-z, 0-9, - and _, and begins and ends with a letter or digit; "
        "write dev",
    ),
    "a name that is a path": (
        network(name="../dev"),
        "6: OV[0].name: ../dev: a name is made of a-z, 0-9, - and _, and begins and ends with a letter or digit; "
        "write dev",
    ),
    "name too long": (
        network(name="x" * 64),
        f"6: OV[0].name: {'x' * 57}...: 64 characters are too many; shorten it to 63",
    ),
    "a name that YAML reads as true": (
        network(name="on"),
        "6: OV[0].name: on: YAML reads this as true or false, a word is needed; write 'on' in quotes",
    ),
    "a name twice": (
        network() + "  - {name: dev, subnet: 10.80.0.0/16, prefix: 24}\n",
        "9: OV[1].name: dev: the network in line 6 has this name; choose another",
    ),
    "a key twice": (
        network() + "    prefix: 26\n",
        "9: OV[0].prefix: 26: given twice, first in line 8; keep one of them",
    ),
    "unknown key": (network(prefixx="24"), "9: OV[0].prefixx: 24: no such key; did you mean prefix?"),
    "unknown key, unlike any": (
        network(colour="red"),
        "9: OV[0].colour: red: no such key; the keys here are name, subnet, prefix, subnet6, prefix6, enabled, allow, "
        "isolated, rules, internal, attach, agents, hosts, host_services",
    ),
    "allow of nobody there": (
        network(allow="[devv, web]") + "  - {name: web, subnet: 10.80.0.0/16, prefix: 24}\n",
        "9: OV[0].allow[0]: devv: there is no network of this name; did you mean dev?",
    ),
    "allow of itself": (
        network(allow="[dev]"),
        "9: OV[0].allow[0]: dev: a network reaches itself as it is; take the name out",
    ),
    "allow is a word": (network(allow="web"), "9: OV[0].allow: web: a list is needed; write [web]"),
    "an alias": (
        network(name="&n dev", allow="*n"),
        "9: OV[0].allow: *n: aliases are not followed; write the value out",
    ),
    "an alias for a network": (
        HEAD + "  - &d {name: dev, subnet: 10.64.0.0/12, prefix: 24}\n  - *d\n",
        "7: OV[1]: *d: a network is made of keys and values; write - name: and the others",
    ),
    "an alias for the section": (
        "x: &x [1]\ndcos_overlay_network: *x\n",
        "2: NET: *x: aliases are not followed; write the value out",
    ),
    "a merge key in a network": (
        "x: &x {prefix: 24}\n" + network(prefix="24\n    <<: *x"),
        "10: OV[0].<<: *x: merge keys are not followed; write the keys out",
    ),
    "a merge key at the top": (
        network() + "<<: {dcos_overlay_enable: false}\n",
        "9: <<: {dcos_overlay_enable}: merge keys are not followed; write the keys out",
    ),
    "allow twice the same": (
        network(allow="[web, web]") + "  - {name: web, subnet: 10.80.0.0/16, prefix: 24}\n",
        "9: OV[0].allow[1]: web: web is named twice; name it once, with all of its ports",
    ),
    "internal is no truth value": (
        network(internal="yes"),
        "9: OV[0].internal: yes: true or false is needed; write true",
    ),
    "overlap": (
        network() + "  - {name: web, subnet: 10.65.0.0/16, prefix: 24}\n",
        "9: OV[1].subnet: 10.65.0.0/16: overlaps 10.64.0.0/12 of dev in line 7; choose a range of its own",
    ),
    "the same range": (
        network() + "  - {name: web, subnet: 10.64.0.0/12, prefix: 24}\n",
        "9: OV[1].subnet: 10.64.0.0/12: overlaps 10.64.0.0/12 of dev in line 7; choose a range of its own",
    ),
    "overlap with the VTEPs": (
        network(subnet="44.0.0.0/8"),
        "7: OV[0].subnet: 44.0.0.0/8: overlaps 44.128.0.0/20 of vtep_subnet in line 2; choose a range of its own",
    ),
    "overlap of IPv6": (
        network(subnet6="fd01:a::/48", prefix6="80"),
        "9: OV[0].subnet6: fd01:a::/48: overlaps fd01:a::/64 of vtep_subnet6 in line 3; choose a range of its own",
    ),
    "loopback": (
        network(subnet="127.0.0.0/12"),
        "7: OV[0].subnet: 127.0.0.0/12: 127.0.0.0/8 in it is loopback (RFC 1122, 3.2.1.3); choose a range without it",
    ),
    "an OUI with more than three octets": (
        network().replace("70:B3:D5:00:00:00", "70:B3:D5:00:00:01"),
        "4: NET.vtep_mac_oui: 70:B3:D5:00:00:01: the last three octets must be 00; write 70:b3:d5:00:00:00",
    ),
    "a multicast OUI": (
        network().replace("70:B3", "71:B3"),
        "4: NET.vtep_mac_oui: 71:B3:D5:00:00:00: this is a multicast address; write 70:b3:d5:00:00:00",
    ),
    "half an OUI": (
        network().replace("70:B3:D5:00:00:00", "70:B3:D5"),
        "4: NET.vtep_mac_oui: 70:B3:D5: not a MAC address; write six octets, the last three 00, as 70:B3:D5:00:00:00",
    ),
    "an OUI that YAML reads as a number": (
        network().replace("70:B3:D5", "70:42:10"),
        "4: NET.vtep_mac_oui: 70:42:10:00:00:00: YAML reads this as a number, a word is needed; "
        "write '70:42:10:00:00:00' in quotes",
    ),
    "no OUI": (
        network().replace("  vtep_mac_oui: 70:B3:D5:00:00:00\n", ""),
        "2: NET: vtep_mac_oui is missing; write vtep_mac_oui: 70:B3:D5:00:00:00",
    ),
    "VTEP subnet shorter than /8": (
        network().replace("44.128.0.0/20", "64.0.0.0/7"),
        "2: NET.vtep_subnet: 64.0.0.0/7: two agents could have one MAC, which has room for 24 bits of the address; "
        "write a range from /8 to /30",
    ),
    "VTEP subnet longer than /30": (
        network().replace("44.128.0.0/20", "44.128.0.0/31"),
        "2: NET.vtep_subnet: 44.128.0.0/31: too small for two agents; write a range from /8 to /30",
    ),
    "no VTEP subnet": (
        network().replace("  vtep_subnet: 44.128.0.0/20\n", ""),
        "2: NET: vtep_subnet is missing, a network has subnet; write vtep_subnet: 44.128.0.0/20",
    ),
    "VTEP MTU too small": (
        network() + "  vtep_mtu: 551\n",
        "9: NET.vtep_mtu: 551: out of range; write a number from 552 to 65535",
    ),
    "MTU too small": (
        network() + "dcos_overlay_mtu: 12\n",
        "9: dcos_overlay_mtu: 12: out of range; write a number from 552 to 65535",
    ),
    "MTU too small for IPv6": (
        network(subnet6="fd01:b::/64", prefix6="80") + "dcos_overlay_mtu: 1000\n",
        "11: dcos_overlay_mtu: 1000: IPv6 needs 1280 (RFC 8200, 5), and a network has subnet6; write 1280 or more",
    ),
    "enable is a question": (
        network() + "dcos_overlay_enable: maybe\n",
        "9: dcos_overlay_enable: maybe: true or false is needed; write true or false",
    ),
    "no networks": (
        HEAD.rstrip("\n") + " []\n",
        "5: NET.overlays: []: there is no network; write at least one, or dcos_overlay_enable: false",
    ),
    "overlays missing": (
        HEAD.replace("  overlays:\n", ""),
        "2: NET.overlays: overlays are missing; write overlays: and below it - name: dcos-1",
    ),
    "overlays are a mapping": (
        HEAD + "    dev: {subnet: 9.0.0.0/8}\n",
        "5: NET.overlays: {dev}: a list of networks is needed; write overlays: and below it - name: dcos-1",
    ),
    "overlays are nothing": (
        HEAD,
        "5: NET.overlays: nothing is written here; give it a value, or take the line out",
    ),
    "the section is nothing": (
        "dcos_overlay_network:\n",
        "1: NET: nothing is written here; give it a value, or take the line out",
    ),
    "a value that would colour the terminal": (
        network(name='"\\e[31mred"'),
        "6: OV[0].name: \\x1b[31mred: a name is made of a-z, 0-9, - and _, and begins and ends with a letter or digit; "
        "write 31mred",
    ),
    "a network that is a word": (
        HEAD + "  - dev\n",
        "6: OV[0]: dev: a network is made of keys and values; write - name: and the others",
    ),
    "the section is a list": (
        "dcos_overlay_network: [a]\n",
        "1: NET: [a]: keys and values are needed, this is a list; write overlays: above it",
    ),
    "the section is a word": (
        "dcos_overlay_network: dev\n",
        "1: NET: dev: neither keys and values nor JSON: Expecting value; write it as a mapping",
    ),
    "JSON with NaN": (
        "dcos_overlay_network: '{\"vtep_mtu\": NaN}'\n",
        '1: NET: {"vtep_mtu": NaN}: not JSON that can be used: NaN is no number; write it as a mapping',
    ),
    "JSON that ends too soon": (
        'dcos_overlay_network: |\n  {\n  "overlays": [\n',
        '4: NET: { "overlays": [: neither keys and values nor JSON: Expecting value; write it as a mapping',
    ),
    "an empty file": ("", "1: the file is empty; write dcos_overlay_network: and the networks under it"),
    "a list": ("- a\n", "1: [a]: keys and values are needed; write dcos_overlay_network:"),
}


@pytest.mark.parametrize("fault", ONE_FAULT)
def test_one_fault_is_named_with_its_line_and_its_cure(fault: str) -> None:
    text, expected = ONE_FAULT[fault]
    expected = expected.replace("OV[", "NET.overlays[").replace("NET", "dcos_overlay_network")
    assert told(text) == [f"config.yaml:{expected}"]
