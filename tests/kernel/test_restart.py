"""An agent that dies loses nothing, and one without a controller does its work."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from kernel.hosts import Host, eventually


def test_a_killed_agent_loses_no_packet_and_no_endpoint(own_host: Host) -> None:
    host = own_host
    one, other = host.container(), host.container()
    one.add()
    other.add()
    ping = subprocess.Popen(
        ["nsenter", "-t", str(one.holder.pid), "-n", "ping", "-q", "-i", "0.005", "-c", "600", other.address],
        stdout=subprocess.PIPE,
        text=True,
    )
    for _ in range(2):
        host.stop_agent(signal.SIGKILL)
        host.start_agent()
    told, _ = ping.communicate(timeout=30)
    assert "600 packets transmitted, 600 received" in told
    assert host.cni("CHECK", one) == (200, "")
    third = host.container()
    assert third.add() not in (one.address, other.address)


def test_an_agent_starts_from_what_it_saved(own_host: Host) -> None:
    host = own_host
    assert host.controller is not None
    container = host.container()
    container.add()
    host.stop_agent(signal.SIGKILL)
    host.controller.stop()
    host.controller = None
    for link in ("hedge0", "hr-host"):
        host.run(f"ip link delete {link}")
    host.run("nft delete table inet hedgerow")
    host.start_agent()
    other = host.container()
    other.add()
    assert other.reaches(container.address)
    eventually(lambda: other.reaches("10.99.0.2"))
    assert host.cni("DEL", container) == (200, "")


def test_an_agent_that_was_never_registered_says_what_it_waits_for(tmp_path: Path) -> None:
    with Host(tmp_path) as host:
        host.start_agent()
        status, body = host.cni("ADD", host.container())
        assert status == 500
        assert "controller" in body


def test_a_container_that_died_with_the_agent_away_is_swept_by_its_del(own_host: Host) -> None:
    host = own_host
    container = host.container()
    address = container.add()
    host.stop_agent(signal.SIGKILL)
    container.end()
    host.start_agent()
    eventually(lambda: "gone" in host.http("/healthz")[1] or "no network namespace" in host.http("/healthz")[1])
    assert host.cni("DEL", container) == (200, "")
    eventually(lambda: '"faults":[]' in host.http("/healthz")[1], "nothing is left to complain of")
    assert address not in {str(key) for key, _ in host.maps.endpoints.items()}


def test_no_container_is_let_in_while_the_firewall_fails(tmp_path: Path) -> None:
    with Host(tmp_path) as host:
        host.start_controller()
        host.start_agent(PATH=_path_without("nft", tmp_path / "bin"))
        eventually(lambda: "firewall inet hedgerow" in host.http("/healthz")[1], "the fault is known")
        status, body = host.cni("ADD", host.container())
        assert status == 500
        assert "firewall inet hedgerow fails" in body
        assert host.http("/healthz")[0] == 503
        assert host.controller is not None
        assert host.controller.reports[-1].applied is None


def _path_without(program: str, directory: Path) -> str:
    """A PATH on which all but one program is found."""
    directory.mkdir()
    for place in reversed(os.environ["PATH"].split(":")):
        for path in Path(place).glob("*") if Path(place).is_dir() else ():
            link = directory / path.name
            link.unlink(missing_ok=True)
            link.symlink_to(path)
    (directory / program).unlink()
    return str(directory)
