"""Kernel parameters under net., of the namespace that the calling thread is in (sysctl(8), ip-sysctl.rst)."""

from __future__ import annotations

from pathlib import Path

from hedgerow.errors import Refused

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


def turn_on_ipv6(link: str) -> None:
    """Also where an engine has turned it off for its container. Writing it takes the kernel's lock of all links."""
    if read(f"ipv6/conf/{link}/disable_ipv6") == "1":
        write(f"ipv6/conf/{link}/disable_ipv6", "0")


def trust_no_router(link: str) -> None:
    """What others on the link say of routers, and of who has which address, counts for nothing. Raises OSError."""
    for name in ("accept_ra", "accept_redirects", "accept_dad"):
        write(f"ipv6/conf/{link}/{name}", "0")


def keep_listening_to_routers() -> None:
    """Links that take addresses and routes from routers' advertisements do so also when they forward (accept_ra 2).

    Else turning that on would end it, and take away the default route that came by it. Links that forward already are
    left alone: there 1 means no. Raises OSError.
    """
    for link in (_NET / "ipv6/conf").iterdir():
        name = f"ipv6/conf/{link.name}"
        if link.name in ("all", "default") or read(f"{name}/forwarding") != "0":
            continue
        if read(f"{name}/accept_ra") == "1":
            write(f"{name}/accept_ra", "2")


def check_ipv6(link: str) -> None:
    """Raises Refused where a link has no IPv6."""
    if not (_NET / "ipv6/conf" / link).is_dir():
        raise Refused(
            f"{link} has no IPv6, and a network has",
            f"start this host's kernel with IPv6, and have {_SMALLEST_MTU6} bytes fit into its tunnels",
        )


def has_ipv6(mtu_bytes: int) -> bool:
    """Whether a link of this MTU has IPv6: the kernel runs with it, and 1,280 bytes fit (RFC 8200, 5)."""
    return mtu_bytes >= _SMALLEST_MTU6 and (_NET / "ipv6").is_dir()
