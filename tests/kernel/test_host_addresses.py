"""What an agent says of its host's addresses, by which containers elsewhere are kept from the host's services."""

from __future__ import annotations

from kernel.hosts import UNDERLAY, Host, eventually


def said(host: Host) -> set[str]:
    assert host.controller is not None
    hello = host.controller.hellos[-1]
    return {str(each) for each in (*hello.addresses4, *hello.addresses6)}


def test_an_agent_says_every_address_that_others_may_know_and_says_it_again_when_one_comes_or_goes(
    own_host: Host,
) -> None:
    host = own_host
    assert said(host) == {str(UNDERLAY)}
    host.run("ip link add docker0 type bridge")
    host.run("ip address add 172.17.0.1/16 dev docker0")
    host.run("ip address add 192.0.2.7/32 dev lo")
    host.run("ip address add fd99::7/64 dev eth0 nodad")
    eventually(lambda: said(host) == {str(UNDERLAY), "192.0.2.7", "fd99::7"}, "a hello with the new addresses")
    host.run("ip address delete 192.0.2.7/32 dev lo")
    eventually(lambda: said(host) == {str(UNDERLAY), "fd99::7"}, "a hello without the one that is gone")
    host.applied()
