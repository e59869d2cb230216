"""Servers and clients in any namespace: who is reached, and whom does he see."""

from __future__ import annotations

import contextlib
import secrets
import select
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

from hedgerow.kernel import netns

TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM
ANSWER_S = 5.0


def family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


@contextlib.contextmanager
def serving(where: str | Path, port: int = 80, kind: int = TCP, at: str = "0.0.0.0") -> Iterator[str]:
    """Answers everybody with its name and the address that it sees."""
    name = secrets.token_hex(4)
    with netns.open_socket(where, family(at), kind) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((at, port))
        if kind == TCP:
            server.listen()
        ours, theirs = socket.socketpair()
        thread = threading.Thread(target=_serve, args=(server, theirs, kind, name))
        thread.start()
        with ours, theirs:
            try:
                yield name
            finally:
                ours.send(b"end")
                thread.join(ANSWER_S)


def _serve(server: socket.socket, end: socket.socket, kind: int, name: str) -> None:
    while end not in select.select([server, end], [], [])[0]:
        if kind == TCP:
            connection, seen = server.accept()
            with connection:
                connection.sendall(f"{name} {seen[0]}".encode())
        else:
            _, seen = server.recvfrom(100)
            server.sendto(f"{name} {seen[0]}".encode(), seen)


def ask(where: str | Path, to: str, port: int, kind: int = TCP, source: str = "", wait_s: float = ANSWER_S) -> str:
    """What the one who is reached there says; `refused`, `silence`."""
    with netns.open_socket(where, family(to), kind) as client:
        client.settimeout(wait_s)
        if source:
            client.bind((source, 0))
        try:
            client.connect((to, port))
            if kind == UDP:
                client.send(b"x")
            return client.recv(100).decode()
        except TimeoutError:
            return "silence"
        except OSError:
            return "refused"
