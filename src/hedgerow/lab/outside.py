"""The outside world in `lan`: on TCP port 80 it tells every caller which address it saw. Standard library only."""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Seen(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = f"{self.client_address[0]}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *words: object) -> None:
        """Nobody reads it."""


if __name__ == "__main__":
    ThreadingHTTPServer((sys.argv[1], 80), Seen).serve_forever()
