"""What a machine boots from: a kernel, and an initramfs of three archives, one after the other.

1. Debian's packages, unpacked and not configured: Python, iproute2, nftables, libbpf.
2. The kernel's modules that networking needs, and what those need in turn.
3. The project, new at each start: sources, the eBPF object, tests, and the Python packages that the tests import.

The first two are made once and kept in the cache directory.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import BinaryIO

from vm.packages import Suite, output_of

USERLAND_SUITE = "bookworm"
USERLAND = [
    "bash", "busybox-static", "conntrack", "coreutils", "dash", "ethtool", "iproute2", "iputils-ping", "kmod",
    "libbpf1", "mount", "nftables", "procps", "python3", "tcpdump", "util-linux",
]  # fmt: skip
USELESS = ("share", "lib/x86_64-linux-gnu/gconv", "lib/x86_64-linux-gnu/perl-base")
APPLETS = ("poweroff", "dmesg", "grep", "nc")
MODULES = (
    "net/", "drivers/net/veth", "drivers/net/vxlan", "drivers/net/dummy", "drivers/net/ifb", "drivers/net/vrf",
    "drivers/net/wireguard", "drivers/net/tun", "drivers/net/netkit",
    "crypto/crc32c",  # nf_tables' libcrc32c asks for it by name, which modules.dep does not say
)  # fmt: skip
PYTHON_PACKAGES = ("pytest", "pytest-timeout", "pyroute2")
"""All that the data path's own tests import; others start a real agent and get everything that it depends on."""
LEAN_TESTS = ["tests/bpf"]


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel of Debian's: its release (`6.1.0-40-amd64`), its image and the archive of its modules."""

    release: str
    image: Path
    modules: Path


def write_archive(tree: Path, out: BinaryIO) -> None:
    """Writes a directory as cpio `newc` (the kernel's Documentation/driver-api/early-userspace/buffer-format.rst).

    Everything belongs to root in there, whoever owns it here.
    """
    for number, path in enumerate([tree, *sorted(tree.rglob("*"))], 1):
        status = path.lstat()
        name = "." if path == tree else str(path.relative_to(tree))
        if stat.S_ISLNK(status.st_mode):
            body = str(path.readlink()).encode()
        else:
            body = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        _write_entry(out, number, name, status.st_mode, body)
    _write_entry(out, 0, "TRAILER!!!", 0, b"")


def _write_entry(out: BinaryIO, inode: int, name: str, mode: int, body: bytes) -> None:
    fields = (inode, mode, 0, 0, 1, 0, len(body), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + "".join(f"{field:08x}" for field in fields).encode() + name.encode() + b"\0"
    for part in (head, body):
        out.write(part + bytes(-len(part) % 4))


def _digest(*parts: object) -> str:
    """Goes into the name of what is kept: with other contents it is made anew."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:8]


def userland(cache: Path) -> Path:
    """Debian's packages as a directory; the archive of it lies beside, `.cpio` added to its name."""
    root = cache / f"root-{_digest(USERLAND, USELESS, APPLETS)}"
    new = root.with_suffix(f".{os.getpid()}")
    if root.exists():
        return root
    try:
        for directory in ("bin", "sbin", "lib", "lib64"):
            (new / "usr" / directory).mkdir(parents=True)
            (new / directory).symlink_to(f"usr/{directory}")
        for package in Suite(USERLAND_SUITE, cache).with_dependencies(USERLAND):
            _unpack(package, new)
        _trim(new)
        with root.with_suffix(".cpio").open("wb") as out:
            write_archive(new, out)
        new.rename(root)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return root


def _unpack(package: Path, root: Path) -> None:
    """Debian 12's packages still put files in /bin and /lib, which are links here: tar must follow them."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as files:
        command = ["tar", "-x", "--no-same-owner", "--keep-directory-symlink", "-C", root]
        subprocess.run(command, stdin=files.stdout, check=True)
    if files.returncode:
        raise SystemExit(f"{package} is damaged: remove it and start again")


def _trim(root: Path) -> None:
    for useless in USELESS:
        shutil.rmtree(root / "usr" / useless, ignore_errors=True)
    for directory in ("proc", "sys", "dev", "run", "tmp", "root", "hedgerow"):
        (root / directory).mkdir(exist_ok=True)
    shutil.rmtree(root / "var/run", ignore_errors=True)
    (root / "var/run").symlink_to("/run")  # pyroute2 keeps namespaces in /var/run/netns
    (root / "usr/bin/sh").unlink(missing_ok=True)
    (root / "usr/bin/sh").symlink_to("dash")  # busybox's takes its own `ip` before iproute2's
    for applet in APPLETS:
        if not any((root / "usr" / place / applet).exists() for place in ("bin", "sbin")):
            (root / "usr/bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n")


def kernel(version: str, suite: str, cache: Path) -> Kernel:
    """The newest kernel of a suite, which must be of this version (`6.1`)."""
    apt = Suite(suite, cache)
    meta = apt.newest("linux-image-amd64")
    named = re.match(r"linux-image-(\S+)", output_of("dpkg-deb", "-f", meta, "Depends"))
    if not named or not named[1].startswith(f"{version}."):
        raise SystemExit(f"{suite} has no kernel {version}: linux-image-amd64 names {named and named[1]}")
    release = named[1]
    target = cache / "kernels" / f"{release}-{_digest(MODULES)}"
    if not target.exists():
        _unpack_kernel(apt.newest(named[0]), release, target)
    return Kernel(release, target / "vmlinuz", target / "modules.cpio")


def _unpack_kernel(package: Path, release: str, target: Path) -> None:
    root = userland(target.parent.parent)
    new, stage = (target.with_name(f"{target.name}.{os.getpid()}.{part}") for part in ("new", "stage"))
    try:
        (new / "package").mkdir(parents=True)
        _unpack(package, new / "package")
        (stage / "usr/lib").mkdir(parents=True)
        (stage / "lib").symlink_to("usr/lib")
        shutil.move(next((new / "package").glob(f"**/lib/modules/{release}")).parent, stage / "usr/lib")
        _keep_modules(stage, root, release)
        (stage / "lib").unlink()
        with (new / "modules.cpio").open("wb") as out:
            write_archive(stage, out)
        shutil.move(new / "package" / "boot" / f"vmlinuz-{release}", new / "vmlinuz")
        shutil.rmtree(new / "package")
        new.rename(target)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        shutil.rmtree(new, ignore_errors=True)


def _keep_modules(stage: Path, root: Path, release: str) -> None:
    """Only what networking needs, and what that needs in turn. depmod is the image's, this machine may have none."""
    libraries = root / "usr/lib/x86_64-linux-gnu"
    loader = root / "usr/lib64/ld-linux-x86-64.so.2"
    depmod = (loader, "--argv0", "depmod", "--library-path", libraries, root / "usr/bin/kmod", "-b", stage, release)
    output_of(*depmod)
    modules = stage / "lib/modules" / release
    needs = dict(row.split(":") for row in (modules / "modules.dep").read_text().splitlines())
    wanted = {name for name in needs if name.removeprefix("kernel/").startswith(MODULES)}
    wanted |= {other for name in wanted for other in needs[name].split()}
    for name in set(needs) - wanted:
        (modules / name).unlink()
    output_of(*depmod)


def stage_project(checkout: Path, stage: Path, tests: list[str], job: str) -> None:
    """Copies what the tests need of the project, as it is now, and the job that `init` runs."""
    (stage / "etc").mkdir(parents=True)
    (stage / "etc/job").write_text(job)
    shutil.copy(Path(__file__).with_name("init"), stage)
    project, no_caches = stage / "hedgerow", shutil.ignore_patterns("__pycache__", ".*", "*.sock")
    for directory in ("src/hedgerow", "bpf", *tests):
        shutil.copytree(checkout / directory, project / directory, ignore=no_caches)
    (project / "build").mkdir()
    for name in ("pyproject.toml", "build/hedgerow.bpf.o", "tests/conftest.py"):
        if (checkout / name).exists():
            shutil.copy(checkout / name, project / name)
    seen: set[str] = set()
    for package in PYTHON_PACKAGES if tests == LEAN_TESTS else (*PYTHON_PACKAGES, *_dependencies(checkout)):
        for source, name in _files_of(package, seen):
            (stage / "site" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, stage / "site" / name)


def _dependencies(checkout: Path) -> list[str]:
    return list(tomllib.loads((checkout / "pyproject.toml").read_text())["project"]["dependencies"])


def _files_of(package: str, seen: set[str]) -> Iterator[tuple[Path, str]]:
    """The files of an installed Python package and of all that it requires, but for those seen already."""
    if package in seen:
        return
    seen.add(package)
    found = distribution(package)
    for file in found.files or ():
        if ".." not in file.parts and "__pycache__" not in file.parts:
            yield Path(str(file.locate())), str(file)
    for requirement in found.requires or ():
        name, _, condition = requirement.partition(";")
        needed = re.match(r"[\w.-]+", name)
        if needed and "extra" not in condition:
            try:
                yield from list(_files_of(needed[0], seen))
            except PackageNotFoundError:  # for another Python or another system
                continue
