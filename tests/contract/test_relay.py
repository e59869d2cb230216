"""The relay: each of dockerd's calls whole, named, and answered, however often an agent dies. With ASan and UBSan."""

from __future__ import annotations

import random
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from contract.programs import Relay, build, environment, fields, http, read_message, short_directory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

BODY = b'{"EndpointID":"e1"}'


def call(body: bytes = BODY, method: str = "NetworkDriver.Join") -> bytes:
    """As dockerd sends it: an empty Host, no Content-Type."""
    return b"POST /%s HTTP/1.1\r\nHost: \r\nContent-Length: %d\r\n\r\n%s" % (method.encode(), len(body), body)


def name_of(seen: bytes) -> str:
    return fields(seen.partition(b"\r\n\r\n")[0])["hedgerow-call"]


def body_of(message: bytes) -> bytes:
    return message.partition(b"\r\n\r\n")[2]


@pytest.fixture(scope="module")
def program() -> Iterator[tuple[Path, Path]]:
    with short_directory() as directory:
        defines: dict[str, str | int] = {"AGENT_SOCKET": f'"{directory}/calls.sock"'}
        yield build("relay/hedgerow-relay.c", directory / "hedgerow-relay", defines), directory


@pytest.fixture
def relay(program: tuple[Path, Path]) -> Iterator[Relay]:
    relay = Relay(*program)
    yield relay
    relay.end()


def test_a_call_reaches_the_agent_whole_with_a_name_and_its_answer_goes_back_as_it_is(relay: Relay) -> None:
    with relay.agent(http(b'{"Value":{}}')) as agent:
        assert relay.ask(call()) == http(b'{"Value":{}}')
    name = name_of(agent.calls[0])
    assert agent.calls == [call().replace(b"\r\n\r\n", b"\r\nHedgerow-Call: " + name.encode() + b"\r\n\r\n")]


@pytest.mark.parametrize("broken", [None, b"HTTP/1.1 20", http(b"half of it")[:-3]], ids=["silence", "head", "body"])
def test_a_call_is_sent_under_one_name_until_an_agent_answers_and_only_that_answer_is_seen(
    relay: Relay, broken: bytes | None
) -> None:
    with relay.agent(broken, broken, broken, http(b"done")) as agent:
        assert relay.ask(call()) == http(b"done")
    assert len(agent.calls) == 4
    assert len(set(agent.calls)) == 1
    assert body_of(agent.calls[3]) == BODY


def test_a_call_waits_for_an_agent_that_is_not_there_yet(relay: Relay) -> None:
    with relay.connect() as connection:
        connection.sendall(call())
        with relay.agent(http(b"at last")):
            assert read_message(connection) == http(b"at last")


def test_calls_of_one_connection_have_names_of_their_own_also_after_a_restart(relay: Relay) -> None:
    with relay.agent(http(b"{}")) as agent:
        with relay.connect() as connection:
            for _ in range(3):
                connection.sendall(call())
                assert read_message(connection) == http(b"{}")
        relay.kill()
        relay.start()
        relay.ask(call())
    assert len({name_of(seen) for seen in agent.calls}) == 4


def test_a_call_without_a_body_and_one_that_comes_byte_by_byte_are_taken(relay: Relay) -> None:
    with relay.agent(http(b"{}")) as agent:
        relay.ask(call(b"", "Plugin.Activate"))
        with relay.connect() as connection:
            for byte in call():
                connection.sendall(bytes([byte]))
            assert read_message(connection) == http(b"{}")
    assert [body_of(seen) for seen in agent.calls] == [b"", BODY]


def test_the_largest_body_passes(relay: Relay) -> None:
    body = random.Random(1).randbytes(1 << 20)
    with relay.agent(None, http(body)) as agent:
        assert body_of(relay.ask(call(body))) == body
    assert body_of(agent.calls[1]) == body


@pytest.mark.parametrize(
    ("message", "status"),
    [
        (b"POST /x HTTP/1.1\r\nContent-Length: 1048577\r\n\r\n", b"413"),
        (b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"411"),
        (b"POST /x HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", b"411"),
        (b"POST /x HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"411"),
        (b"POST /x HTTP/1.1\r\nX: " + b"y" * (17 << 10), b"431"),
        (call() + call(), b"400"),
    ],
    ids=["large body", "chunks", "absurd length", "negative length", "large head", "two at a time"],
)
def test_what_is_no_call_is_refused_and_the_connection_ends(relay: Relay, message: bytes, status: bytes) -> None:
    with relay.connect() as connection:
        connection.sendall(message)
        assert read_message(connection).startswith(b"HTTP/1.1 " + status)
        assert connection.recv(1) == b""


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\nno", b"x" * (17 << 10)],
    ids=["no length", "noise"],
)
def test_an_answer_that_cannot_be_passed_on_is_an_error_and_not_asked_for_again(relay: Relay, answer: bytes) -> None:
    with relay.agent(answer) as agent:
        assert relay.ask(call()).startswith(b"HTTP/1.1 502 ")
    assert len(agent.calls) == 1


def test_a_call_is_dropped_when_dockerd_hangs_up(relay: Relay) -> None:
    with relay.connect() as connection:
        connection.sendall(call())
    with relay.agent(http(b"{}")) as agent:
        relay.ask(call(b"another"))
    assert [body_of(seen) for seen in agent.calls] == [b"another"]


def test_a_connection_to_the_agent_is_closed_when_dockerd_hangs_up(relay: Relay, program: tuple[Path, Path]) -> None:
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(str(program[1] / "calls.sock"))
        agent.listen()
        agent.settimeout(20)
        with relay.connect() as docker:
            docker.sendall(call())
            taken, _ = agent.accept()
            read_message(taken)
        with taken:
            taken.settimeout(20)
            assert taken.recv(1) == b""
    (program[1] / "calls.sock").unlink()


def test_a_thousand_calls_on_five_hundred_connections_pass_an_agent_that_dies_over_every_third(relay: Relay) -> None:
    """More connections than the relay takes at once: the others wait."""
    answers = [None if number % 3 == 0 else http(b"%d" % number) for number in range(1500)]
    opened = threading.Barrier(500)

    def two_calls(number: int) -> int:
        with relay.connect() as connection:
            opened.wait(20)
            for _ in range(2):
                connection.sendall(call(b"%d" % number))
                assert read_message(connection).startswith(b"HTTP/1.1 200 OK")
        return number

    with relay.agent(*answers, http(b"")) as agent, ThreadPoolExecutor(500) as pool:
        assert list(pool.map(two_calls, range(500))) == list(range(500))
    assert len({name_of(seen) for seen in agent.calls}) == 1000


def test_it_says_so_when_its_listener_was_not_passed(program: tuple[Path, Path]) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f"exec {program[0]} 3<&0"],
        stdin=subprocess.DEVNULL,
        env=environment(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    assert b"descriptor 3" in done.stderr


PIECES = st.lists(
    st.sampled_from(
        [
            b"POST /x HTTP/1.1",
            b"\r\n",
            b"\r\n\r\n",
            b"Content-Length:",
            b" 3",
            b"0",
            b"transfer-encoding: chunked",
            b"\n",
        ]
    )
    | st.binary(max_size=40),
    max_size=20,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=PIECES)
def test_whatever_a_client_sends_the_next_one_is_served(relay: Relay, pieces: list[bytes]) -> None:
    with relay.agent(http(b"{}")):
        with relay.connect() as connection:
            for piece in pieces:
                try:
                    connection.sendall(piece)
                except ConnectionError:
                    break
        assert relay.ask(call()) == http(b"{}")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=PIECES)
def test_whatever_an_agent_answers_a_call_is_answered(relay: Relay, pieces: list[bytes]) -> None:
    with relay.agent(b"".join(pieces), http(b"{}")):
        with relay.connect() as connection:
            connection.sendall(call())
            assert connection.recv(1)
        assert relay.ask(call()) == http(b"{}")
