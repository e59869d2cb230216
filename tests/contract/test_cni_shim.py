"""The CNI shim as an engine sees it: environment and stdin in, stdout and exit status out. With ASan and UBSan."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from contract.programs import ScriptedAgent, build, environment, fields, http, short_directory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

WAIT_MS = 1500
DELETE_WAIT_MS = 200
ADD = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/x", "CNI_IFNAME": "eth0"}
DEL = {**ADD, "CNI_COMMAND": "DEL"}


@dataclass(frozen=True)
class Shim:
    program: Path
    directory: Path

    def run(self, variables: dict[str, str], stdin: bytes = b"{}") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [self.program], env=environment(**variables), input=stdin, capture_output=True, timeout=30, check=False
        )

    def agent(self, *answers: bytes | None) -> ScriptedAgent:
        return ScriptedAgent(self.directory / "agent.sock", answers)

    def queue(self) -> list[bytes]:
        return [path.read_bytes() for path in sorted((self.directory / "cni-queue").glob("*"))]


@pytest.fixture(scope="module")
def program() -> Iterator[tuple[Path, Path]]:
    with short_directory() as directory:
        run = directory / "run"
        defines = {"RUN_DIRECTORY": f'"{run}"', "WAIT_MS": WAIT_MS, "DELETE_WAIT_MS": DELETE_WAIT_MS}
        yield build("cni/hedgerow-cni.c", directory / "hedgerow-cni", defines), run


@pytest.fixture
def shim(program: tuple[Path, Path]) -> Iterator[Shim]:
    binary, run = program
    run.mkdir(mode=0o700)
    yield Shim(binary, run)
    for path in [*run.glob("cni-queue/*"), *run.glob("*.sock")]:
        path.unlink()
    for path in (run / "cni-queue", run):
        if path.exists():
            path.rmdir()


def test_version_is_answered_without_an_agent_and_without_reading_stdin(shim: Shim) -> None:
    never_written, kept_open = os.pipe()
    done = subprocess.run(
        [shim.program],
        env=environment(CNI_COMMAND="VERSION"),
        stdin=never_written,
        capture_output=True,
        timeout=30,
        check=True,
    )
    os.close(never_written)
    os.close(kept_open)
    answer = json.loads(done.stdout)
    assert answer["supportedVersions"] == ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0"]


def test_without_a_command_it_says_what_it_is(shim: Shim) -> None:
    done = shim.run({})
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"CNI" in done.stderr


def test_the_agent_gets_variables_and_stdin_as_they_are_and_its_answer_is_printed(shim: Shim) -> None:
    stdin = b'{"name":"dev",\n"odd": "\xff\x00 b"}'
    with shim.agent(http(b'{"ips":[]}')) as agent:
        done = shim.run({**ADD, "CNI_ARGS": "IP=9.0.0.7;A=", "CNI_PATH": "/x", "HOME": "/root"}, stdin)
    assert (done.returncode, done.stdout) == (0, b'{"ips":[]}')
    head, _, body = agent.calls[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /cni HTTP/1.0\r\n")
    assert body == (
        b"CNI_COMMAND=ADD\0CNI_CONTAINERID=c1\0CNI_NETNS=/run/netns/x\0CNI_IFNAME=eth0\0CNI_ARGS=IP=9.0.0.7;A=\0\0"
        + stdin
    )


def test_the_agent_is_told_until_when_the_answer_is_waited_for(shim: Shim) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000_000
    with shim.agent(http(b"")) as agent:
        shim.run(ADD)
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000_000
    deadline = int(fields(agent.calls[0].partition(b"\r\n\r\n")[0])["hedgerow-deadline"])
    assert before + WAIT_MS <= deadline <= after + WAIT_MS


def test_a_refusal_is_printed_and_the_exit_status_is_1(shim: Shim) -> None:
    with shim.agent(http(b'{"code":7}', "400 Bad Request")):
        done = shim.run(ADD)
    assert (done.returncode, done.stdout) == (1, b'{"code":7}')


@pytest.mark.parametrize("broken", [None, b"HTTP/1.1 20", http(b"half of it")[:-3]], ids=["silence", "head", "body"])
def test_a_call_that_breaks_off_is_sent_again_whole(shim: Shim, broken: bytes | None) -> None:
    with shim.agent(broken, broken, http(b"{}")) as agent:
        done = shim.run(ADD, b'{"name":"dev"}')
    assert (done.returncode, done.stdout) == (0, b"{}")
    assert len(agent.calls) == 3
    assert len(set(agent.calls)) == 1


@pytest.mark.parametrize("held", [True, False], ids=["socket held, nobody accepts", "no socket"])
def test_without_an_agent_add_waits_a_bounded_time_and_says_try_again(shim: Shim, held: bool) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        if held:
            listener.bind(str(shim.directory / "agent.sock"))
            listener.listen(8)
        start = time.monotonic()
        done = shim.run(ADD)
    assert WAIT_MS / 1000 <= time.monotonic() - start < 3 * WAIT_MS / 1000
    assert done.returncode == 1
    assert json.loads(done.stdout)["code"] == 11
    assert shim.queue() == []


def test_an_agent_that_never_comes_to_an_end_is_not_waited_for_longer(shim: Shim) -> None:
    with shim.agent(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nnot a hundred"):
        done = shim.run(ADD)
    assert json.loads(done.stdout)["code"] == 11


@pytest.mark.parametrize("held", [True, False], ids=["socket held, nobody accepts", "no socket"])
def test_without_an_agent_a_del_is_queued_once_and_succeeds(shim: Shim, held: bool) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        if held:
            listener.bind(str(shim.directory / "agent.sock"))
            listener.listen(8)
        for _ in range(2):
            done = shim.run(DEL, b'{"name":"dev"}')
            assert (done.returncode, done.stdout) == (0, b"")
    assert shim.queue() == [
        b'CNI_COMMAND=DEL\0CNI_CONTAINERID=c1\0CNI_NETNS=/run/netns/x\0CNI_IFNAME=eth0\0\0{"name":"dev"}'
    ]


def test_a_full_queue_refuses_more(shim: Shim) -> None:
    queue = shim.directory / "cni-queue"
    queue.mkdir()
    for number in range(1024):
        (queue / f"{number}.delete").touch()
    done = shim.run(DEL)
    assert done.returncode == 1
    assert json.loads(done.stdout)["code"] == 11


def test_the_queue_is_for_root_alone(shim: Shim) -> None:
    shim.run(DEL)
    queue = shim.directory / "cni-queue"
    assert queue.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in queue.iterdir()] == [0o600]


def test_input_over_a_mebibyte_is_refused(shim: Shim) -> None:
    done = shim.run(ADD, b" " * (1 << 20))
    assert done.returncode == 1
    assert json.loads(done.stdout)["code"] == 5


ANSWERS = st.one_of(
    st.binary(max_size=200),
    st.lists(
        st.sampled_from([b"HTTP/1.1 ", b"200 OK", b"\r\n", b"\r\n\r\n", b"content-length:", b"Content-Length: 7", b"0"])
        | st.binary(max_size=9),
        max_size=14,
    ).map(b"".join),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(answer=ANSWERS, stdin=st.binary(max_size=300))
def test_whatever_an_agent_says_the_shim_ends_by_0_or_1(shim: Shim, answer: bytes, stdin: bytes) -> None:
    with shim.agent(answer, http(b"{}")):
        done = shim.run(ADD, stdin)
    assert done.returncode in (0, 1), done.stderr.decode()
