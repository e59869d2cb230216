"""Frames over and over from a network namespace, while a test disturbs its host.

Run as `flood.py NAMESPACE LINK RATE FRAME...`, frames in hex: sends about RATE a second by a packet socket on LINK,
until stdin is closed; prints how many.
"""

from __future__ import annotations

import contextlib
import select
import socket
import sys
import time

from hedgerow.kernel.netns import open_socket

BURST = 50


def main(namespace: str, link: str, rate: int, frames: list[bytes]) -> int:
    raw = open_socket(namespace, socket.AF_PACKET, socket.SOCK_RAW, 0)
    raw.bind((link, 0))
    begin, sent = time.monotonic(), 0
    while not select.select([sys.stdin], [], [], max(0.0, begin + sent / rate - time.monotonic()))[0]:
        for _ in range(BURST):
            with contextlib.suppress(OSError):  # a queue is full
                raw.send(frames[sent % len(frames)])
            sent += 1
    return sent


if __name__ == "__main__":
    sys.stdout.write(f"{main(*sys.argv[1:3], int(sys.argv[3]), [bytes.fromhex(word) for word in sys.argv[4:]])}\n")
