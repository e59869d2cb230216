"""The authority, and the certificates that it issues to controllers and agents.

Keys are P-256. An agent's subject CN is its id. A controller's certificate carries the fixed name `controller`, so that
agents may dial it by any address; only it has the server's extended key usage, so no agent can pose as a controller.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .tls import CONTROLLER

CLOCK_SKEW = timedelta(hours=1)
AUTHORITY_LIFE = timedelta(days=3650)
CERTIFICATE_LIFE = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class Authority:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def make_authority(directory: Path) -> Authority:
    """A new authority as `ca.pem` and `ca.key` in `directory`. The key never leaves it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("hedgerow authority")
    constraints = x509.BasicConstraints(ca=True, path_length=0)
    builder = _builder(name, name, key.public_key(), AUTHORITY_LIFE)
    builder = builder.add_extension(constraints, critical=True)
    builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    authority = Authority(builder.sign(key, hashes.SHA256()), key)
    directory.mkdir(parents=True, exist_ok=True)
    _write_key(directory / "ca.key", key)
    _write(directory / "ca.pem", _pem(authority.certificate))
    return authority


def issue(directory: Path, authority: Authority, common_name: str, names: Sequence[str] = ()) -> None:
    """A certificate signed by `authority`, written with `ca.pem` into `directory`.

    Without `names` an agent's (`agent.pem`, `agent.key`; `common_name` is its id). With `names`, DNS names or addresses
    beside the fixed one, a controller's (`controller.pem`, `controller.key`).
    """
    serves = bool(names)
    key = ec.generate_private_key(ec.SECP256R1())
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if serves else [])]
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    builder = _builder(_name(common_name), authority.certificate.subject, key.public_key(), CERTIFICATE_LIFE)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    builder = builder.add_extension(issuer, critical=False)
    if serves:
        alternatives = [_alternative(name) for name in dict.fromkeys((CONTROLLER, *names))]
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    certificate = builder.sign(authority.key, hashes.SHA256())
    stem = "controller" if serves else "agent"
    directory.mkdir(parents=True, exist_ok=True)
    _write_key(directory / f"{stem}.key", key)
    _write(directory / f"{stem}.pem", _pem(certificate))
    _write(directory / "ca.pem", _pem(authority.certificate))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, life: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - CLOCK_SKEW).not_valid_after(now + life)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    private = serialization.PrivateFormat.PKCS8
    _write(path, key.private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption()))


def _write(path: Path, data: bytes) -> None:
    """0600 from its first byte, whole or not at all."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
    fresh.replace(path)
