"""The two C programs, built with sanitizers and with paths and waits of a test's own, and a scripted agent for them."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
SANITIZED = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
SANITIZER_EXIT = 99
ENVIRONMENT = {"ASAN_OPTIONS": f"exitcode={SANITIZER_EXIT}", "UBSAN_OPTIONS": f"exitcode={SANITIZER_EXIT}"}


@contextlib.contextmanager
def short_directory() -> Iterator[Path]:
    """A socket's path has at most 107 characters: pytest's own directories are too deep."""
    directory = Path(tempfile.mkdtemp(prefix="hr-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def build(source: str, to: Path, defines: dict[str, str | int]) -> Path:
    values = [f"-D{name}={value}" for name, value in defines.items()]
    flags = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", *SANITIZED, *values]
    subprocess.run(["gcc", *flags, str(ROOT / source), "-o", str(to)], check=True)
    return to


def http(body: bytes, status: str = "200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\ncontent-length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


class ScriptedAgent:
    """Reads each call whole and answers with the next of `answers`, as it is; the last one again and again.

    A None closes the connection without a word, as an agent does that is killed.
    """

    def __init__(self, path: Path, answers: Sequence[bytes | None]) -> None:
        self.calls: list[bytes] = []
        self._answers = list(answers)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> ScriptedAgent:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        Path(self._listener.getsockname()).unlink()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(ConnectionError):
                call = read_message(connection)
                if not call:
                    continue
                self.calls.append(call)
                answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
                if answer is not None:
                    connection.sendall(answer)


def read_message(connection: socket.socket) -> bytes:
    """One HTTP message, whole; what there was of it when the other side ends."""
    data = b""
    while True:
        head, blank, body = data.partition(b"\r\n\r\n")
        if blank and len(body) >= int(fields(head).get("content-length", 0)):
            return data
        more = connection.recv(1 << 16)
        if not more:
            return data
        data += more


def fields(head: bytes) -> dict[str, str]:
    rows = (line.decode("latin-1").partition(":") for line in head.split(b"\r\n")[1:])
    return {name.lower(): value.strip() for name, _, value in rows}


def environment(**variables: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], **ENVIRONMENT, **variables}


class Relay:
    """The relay with the listener that somebody else would hold for it."""

    def __init__(self, program: Path, directory: Path) -> None:
        self.docker_socket = directory / "docker.sock"
        self._agent_socket = directory / "calls.sock"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.docker_socket))
        self._listener.listen(512)
        self._program = program
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", f"exec {self._program} 3<&0"],
            stdin=self._listener,
            stderr=subprocess.PIPE,
            env=environment(),
            text=True,
        )

    def agent(self, *answers: bytes | None) -> ScriptedAgent:
        return ScriptedAgent(self._agent_socket, answers)

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(20)
        connection.connect(str(self.docker_socket))
        return connection

    def ask(self, message: bytes) -> bytes:
        with self.connect() as connection:
            connection.sendall(message)
            return read_message(connection)

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def end(self) -> None:
        """It must be there still: nothing that a test did may have ended it."""
        running = self._process.poll() is None
        self._process.terminate()
        _, errors = self._process.communicate()
        self._listener.close()
        self.docker_socket.unlink()
        assert running, errors
