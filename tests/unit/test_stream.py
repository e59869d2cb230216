"""Streams over real TLS on the loopback: who may connect, what happens to slow, silent, dying and lying peers."""

from __future__ import annotations

import asyncio
import os
import resource
import ssl
import stat
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from hedgerow.errors import BadInput, Conflict, Unreachable
from hedgerow.wire import pki, stream, tls
from hedgerow.wire.listen import bind, held_sockets, split_address, take_all_descriptors
from hedgerow.wire.messages import MAX_FRAME_BYTES, Chunk, Credit, Ping
from hedgerow.wire.stream import Closed, Stream

AGENT = "0123456789abcdef" * 2


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("keys")
    authority = pki.make_authority(directory / "ca")
    pki.issue(directory / "controller", authority, "controller", ["127.0.0.1"])
    pki.issue(directory / "agent", authority, AGENT)
    stranger = pki.make_authority(directory / "other-ca")
    pki.issue(directory / "stranger", stranger, AGENT)
    pki.issue(directory / "impostor", stranger, "controller", ["127.0.0.1"])
    return directory


@asynccontextmanager
async def connected(keys: Path) -> AsyncIterator[tuple[Stream, Stream]]:
    """The agent's and the controller's end."""
    accepted: asyncio.Queue[Stream] = asyncio.Queue()
    done = asyncio.Event()

    async def accept(theirs: Stream) -> None:
        accepted.put_nowait(theirs)
        await done.wait()

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        listener = bind("127.0.0.1:0")
        server = await stream.serve(listener, tls.server_context(keys / "controller"), accept, group)
        ours = await stream.dial(*listener.getsockname(), tls.client_context(keys / "agent"))
        try:
            yield ours, await accepted.get()
        finally:
            done.set()
            await ours.close()
            server.close()


def test_messages_arrive_whole_in_order_and_with_the_identity_of_the_certificate(keys: Path) -> None:
    async def case() -> None:
        async with connected(keys) as (ours, theirs):
            assert theirs.identity == AGENT
            assert ours.identity == "controller"
            sizes = [0, 1, 65_536, 65_537, 3_000_000]
            sending = asyncio.gather(*(ours.send(n, Chunk(bytes(size))) for n, size in enumerate(sizes, 1)))
            received = [await theirs.receive() for _ in sizes]
            await sending
            assert [(n, len(chunk.data)) for n, chunk in received] == list(enumerate(sizes, 1))
            await theirs.send(0, Credit(5))
            assert await ours.receive() == (0, Credit(5))

    asyncio.run(case())


@pytest.mark.parametrize("certificate", ["stranger", "controller-as-agent", "none"])
def test_a_peer_without_a_certificate_of_ours_is_cut_off(keys: Path, certificate: str) -> None:
    async def case() -> None:
        async with connected(keys) as (ours, _):
            if certificate == "stranger":
                context = tls.client_context(keys / "stranger")
                context.load_verify_locations(keys / "controller" / "ca.pem")
            else:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.load_verify_locations(keys / "controller" / "ca.pem")
            if certificate == "controller-as-agent":
                context.load_cert_chain(keys / "impostor" / "controller.pem", keys / "impostor" / "controller.key")
            host, port = ours.peer.split(":")

            async def speak() -> None:
                refused = await stream.dial(host, int(port), context)
                await refused.receive()

            with pytest.raises(Unreachable):
                await speak()

    asyncio.run(case())


@pytest.mark.parametrize("server", ["impostor", "agent"])
def test_an_agent_sends_nothing_to_who_is_no_controller(keys: Path, server: str) -> None:
    async def case() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        stem = "agent" if server == "agent" else "controller"
        context.load_cert_chain(keys / server / f"{stem}.pem", keys / server / f"{stem}.key")
        listener = bind("127.0.0.1:0")
        heard: list[bytes] = []

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.append(await reader.read())
            writer.close()

        async with asyncio.timeout(20), await asyncio.start_server(accept, sock=listener, ssl=context):
            with pytest.raises(Unreachable, match="certificate"):
                await stream.dial(*listener.getsockname(), tls.client_context(keys / "agent"))
        assert heard in ([], [b""])

    asyncio.run(case())


def test_who_does_not_read_makes_the_sender_wait_and_is_cut_off(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def case() -> None:
        async with connected(keys) as (ours, _):
            monkeypatch.setattr(stream, "IDLE_S", 0.3)
            with pytest.raises(Closed, match=r"silent for 0\.3 s"):
                await ours.send(1, Chunk(bytes(60_000_000)))
            with pytest.raises(Closed):
                await ours.send(1, Chunk(b""))

    asyncio.run(case())


def test_a_frame_that_was_begun_and_given_up_ends_the_connection(keys: Path) -> None:
    async def case() -> None:
        async with connected(keys) as (ours, theirs):
            sending = asyncio.ensure_future(ours.send(1, Chunk(bytes(60_000_000))))
            done, _ = await asyncio.wait([sending], timeout=0.2)
            assert not done
            sending.cancel()
            with pytest.raises(Closed):
                await theirs.receive()

    asyncio.run(case())


def test_silence_counts_as_death_and_a_ping_breaks_it(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def case() -> None:
        async with connected(keys) as (ours, theirs):
            monkeypatch.setattr(stream, "IDLE_S", 0.5)
            monkeypatch.setattr(stream, "PING_S", 0.1)
            alive = asyncio.ensure_future(ours.keep_alive())
            hearing = [asyncio.ensure_future(end.receive()) for end in (ours, theirs)]
            done, _ = await asyncio.wait(hearing, timeout=1.5)
            assert not done
            alive.cancel()
            for end in hearing:
                with pytest.raises(Closed, match=r"silent|closed"):
                    await end

    asyncio.run(case())


@pytest.mark.parametrize(
    ("frame", "error", "words"),
    [
        (struct.pack("!I", 3) + b"\xff\xff\xff", BadInput, "cannot be read"),
        (struct.pack("!I", MAX_FRAME_BYTES + 1), Closed, "at most"),
        (struct.pack("!I", 10) + b"abc", Closed, "closed by the other side"),
    ],
)
def test_a_frame_that_is_none_is_named(keys: Path, frame: bytes, error: type[Exception], words: str) -> None:
    async def case() -> None:
        async with connected(keys) as (ours, theirs):
            pipe: Any = ours._pipe
            pipe._writer.write(frame)
            await pipe._writer.drain()
            if words.startswith("closed"):
                await ours.close()
            with pytest.raises(error, match=words):
                await theirs.receive()

    asyncio.run(case())


def test_one_connection_that_goes_wrong_leaves_the_others_alone(keys: Path) -> None:
    async def case() -> None:
        async def accept(theirs: Stream) -> None:
            _, message = await theirs.receive()
            assert isinstance(message, Credit)
            if message.more_bytes == 0:
                raise RuntimeError("a fault of ours")
            await theirs.send(1, message)

        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            listener = bind("127.0.0.1:0")
            server = await stream.serve(listener, tls.server_context(keys / "controller"), accept, group)
            context = tls.client_context(keys / "agent")
            good, bad = [await stream.dial(*listener.getsockname(), context) for _ in range(2)]
            await bad.send(1, Credit(0))
            with pytest.raises(Closed):
                await bad.receive()
            await good.send(1, Credit(7))
            assert await good.receive() == (1, Credit(7))
            server.close()

    asyncio.run(case())


def test_pings_are_answered_without_being_seen(keys: Path) -> None:
    async def case() -> None:
        async with connected(keys) as (ours, theirs):
            await ours.send(0, Ping())
            await ours.send(1, Credit(1))
            assert await theirs.receive() == (1, Credit(1))
            await theirs.send(1, Credit(2))
            assert await ours.receive() == (1, Credit(2))

    asyncio.run(case())


def test_nobody_else_can_read_a_key(keys: Path) -> None:
    for path in keys.rglob("*"):
        if path.is_file():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_certificates_that_are_missing_or_wrong_are_named(keys: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=f"{tmp_path} does not hold usable certificates"):
        tls.client_context(tmp_path)
    assert tls.common_name(keys / "agent" / "agent.pem") == AGENT
    assert tls.common_name(keys / "controller" / "controller.pem") == "controller"
    for number, text in enumerate(("", "x", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")):
        (tmp_path / str(number)).write_text(text)
    for path in (keys / "agent" / "agent.key", tmp_path / "none", *(tmp_path / str(number) for number in range(3))):
        with pytest.raises(BadInput, match="is no certificate"):
            tls.common_name(path)


def test_the_name_in_a_certificate_is_the_one_that_a_full_reader_finds(tmp_path: Path) -> None:
    authority = pki.make_authority(tmp_path)
    for name in ("a", "x" * 64, "n1.example", "Größe"):
        pki.issue(tmp_path, authority, name)
        full = x509.load_pem_x509_certificate((tmp_path / "agent.pem").read_bytes())
        assert tls.common_name(tmp_path / "agent.pem") == name
        assert full.subject.rfc4514_string() == f"CN={name}"


def test_sockets_are_taken_only_when_they_are_meant_for_this_process() -> None:
    mine = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "api"}
    with pytest.raises(BadInput, match="do not match"):
        held_sockets(dict(mine))
    for changed in ({"LISTEN_PID": "1"}, {"LISTEN_FDS": ""}, {"LISTEN_PID": ""}):
        environ = mine | changed
        assert held_sockets(environ) == {}
        assert environ == {}


def test_a_process_that_serves_many_may_open_as_many_files_as_it_is_allowed() -> None:
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(before, 1024), hard))
    try:
        take_all_descriptors()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, hard))


def test_a_controllers_name_that_cannot_be_asked_for_is_only_unreachable(keys: Path) -> None:
    async def case() -> None:
        with pytest.raises(Unreachable, match=r"a\.\.b:8081 cannot be reached"):
            await stream.dial("a..b", 8081, tls.client_context(keys / "agent"))

    asyncio.run(case())


def test_addresses_are_read_strictly() -> None:
    assert split_address("127.0.0.1:8080") == ("127.0.0.1", 8080)
    assert split_address("[::1]:80") == ("::1", 80)
    for text in ("", "8080", "host:", ":80", "host:http", "host:70000"):
        with pytest.raises(BadInput, match="is no address"):
            split_address(text)
    with bind("127.0.0.1:0") as taken, pytest.raises(Conflict, match="cannot listen"):
        bind(f"127.0.0.1:{taken.getsockname()[1]}")
