"""Traffic between two containers while a test disturbs their hosts: numbered UDP probes and a TCP stream.

Run as `traffic.py NAMESPACE NAMESPACE ADDRESS COUNT`: from the first namespace to the address in the second. Sends a
probe each millisecond and a number through the stream with each, COUNT of them and on until stdin is closed; prints
what arrived as one line of JSON.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import sys
import threading
import time

from hedgerow.kernel.netns import open_socket

PORT = 9099
SO_RCVBUFFORCE = 33  # socket(7); not in the module
INTERVAL_S = 0.001
LAST_WAIT_S = 3.0


def receive_probes(receiver: socket.socket, seen: list[int]) -> None:
    receiver.settimeout(LAST_WAIT_S)
    while True:
        try:
            (number,) = struct.unpack("!Q", receiver.recv(64))
        except TimeoutError:
            return
        seen.append(number)


def receive_stream(connection: socket.socket, numbers: list[int]) -> None:
    buffer = b""
    while data := connection.recv(65536):
        buffer += data
        whole = len(buffer) // 8 * 8
        numbers.extend(number for (number,) in struct.iter_unpack("!Q", buffer[:whole]))
        buffer = buffer[whole:]


def main(source: str, target: str, address: str, count: int) -> None:
    receiver = open_socket(target, socket.AF_INET, socket.SOCK_DGRAM)
    receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
    receiver.bind((address, PORT))
    listener = open_socket(target, socket.AF_INET, socket.SOCK_STREAM)
    listener.bind((address, PORT))
    listener.listen()
    stream = open_socket(source, socket.AF_INET, socket.SOCK_STREAM)
    stream.connect((address, PORT))
    connection, _ = listener.accept()
    seen: list[int] = []
    numbers: list[int] = []
    threads = [
        threading.Thread(target=receive_probes, args=(receiver, seen)),
        threading.Thread(target=receive_stream, args=(connection, numbers)),
    ]
    for thread in threads:
        thread.start()
    sender = open_socket(source, socket.AF_INET, socket.SOCK_DGRAM)
    begin = time.monotonic()
    sent = 0
    while sent < count or not select.select([sys.stdin], [], [], 0)[0]:
        time.sleep(max(0.0, begin + sent * INTERVAL_S - time.monotonic()))
        message = struct.pack("!Q", sent)
        sender.sendto(message, (address, PORT))
        stream.sendall(message)
        sent += 1
    stream.shutdown(socket.SHUT_WR)
    for thread in threads:
        thread.join()
    result = {
        "sent": sent,
        "lost": sent - len(set(seen)),
        "doubled": len(seen) - len(set(seen)),
        "stream": numbers == list(range(sent)),
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
