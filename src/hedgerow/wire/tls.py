"""TLS between agents and controllers: 1.3, both sides with a certificate of the one authority (`pki`).

Who only uses certificates does not need the library that makes them: it costs a sixth of an agent's start.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

from hedgerow.errors import BadInput

CONTROLLER = "controller"
"""The name that agents expect in the certificate of whom they dial."""

COMMON_NAME = bytes.fromhex("550403")
"""The object identifier 2.5.4.3, as DER has it."""

_VERSION = 0xA0


def server_context(directory: Path) -> ssl.SSLContext:
    """For a controller: asks for the agent's certificate. Raises BadInput naming what cannot be loaded."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, directory, "controller")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(directory: Path) -> ssl.SSLContext:
    """For an agent; dial with `server_hostname=CONTROLLER`. Raises BadInput naming what cannot be loaded."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, directory, "agent")
    # An agent's certificate has a subject and no names: its subject must never pass for the name `controller`.
    context.hostname_checks_common_name = False
    return context


def common_name(certificate: Path) -> str:
    """The subject's CN of a PEM certificate: an agent's own id. Raises BadInput."""
    try:
        ((_, whole),) = _parts(ssl.PEM_cert_to_DER_cert(certificate.read_text()))
        _, signed = next(_parts(whole))
        # RFC 5280, 4.1: version (optional), serial number, algorithm, issuer, validity, subject, ...
        subject = [content for tag, content in _parts(signed) if tag != _VERSION][4]
        attributes = [tuple(_parts(one)) for _, several in _parts(subject) for _, one in _parts(several)]
        return next(value.decode() for (_, kind), (_, value) in attributes if kind == COMMON_NAME)
    except (OSError, ValueError, IndexError, StopIteration) as error:
        raise BadInput(f"{certificate} is no certificate with a name: {error}", "issue it anew") from error


def _parts(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of the elements that follow each other (X.690, 8.1)."""
    at = 0
    while at < len(der):
        tag, length = der[at], der[at + 1]
        at += 2
        if length & 0x80:
            size = length & 0x7F
            length = int.from_bytes(der[at : at + size], "big")
            at += size
        yield tag, der[at : at + length]
        at += length


def _context(protocol: int, directory: Path, stem: str) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_verify_locations(directory / "ca.pem")
        context.load_cert_chain(directory / f"{stem}.pem", directory / f"{stem}.key")
    except OSError as error:
        raise BadInput(
            f"{directory} does not hold usable certificates: {error.strerror or error}",
            f"it needs ca.pem, {stem}.pem and {stem}.key, the last two of one pair",
        ) from error
    return context
