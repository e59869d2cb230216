"""Kernel parameters under net., of the namespace that the calling thread is in (sysctl(8), ip-sysctl.rst)."""

from __future__ import annotations

from pathlib import Path

_NET = Path("/proc/sys/net")
_SMALLEST_MTU6 = 1280


def read(name: str) -> str | None:
    """`name` with slashes, for links' names have dots: `ipv4/conf/eth0.5/forwarding`. None where there is none."""
    try:
        return (_NET / name).read_text().strip()
    except FileNotFoundError:
        return None


def write(name: str, value: str) -> None:
    """Raises OSError."""
    (_NET / name).write_text(value)


def has_ipv6(mtu_bytes: int) -> bool:
    """Whether a link of this MTU has IPv6: the kernel runs with it, and 1,280 bytes fit (RFC 8200, 5)."""
    return mtu_bytes >= _SMALLEST_MTU6 and (_NET / "ipv6").is_dir()
