"""What `make` asks of a machine before it installs anything, and how it installs: the situations of a first demo.

A kernel without a feature is played by a library that is loaded before perl's libc and refuses one thing: a netlink
message with a certain word in it, a kind of eBPF map, a file system, a namespace. All else really goes to the kernel.
"""

from __future__ import annotations

import os
import subprocess
import time
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from conftest import Proof
from labkit import RunningLab

from hedgerow.lab import probe
from hedgerow.lab.images import checkout

PACKAGING = checkout() / "packaging"
PREFLIGHT = str(PACKAGING / "preflight")

DENY = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>

static int denied(const char *what, const char *value) {
	const char *deny = getenv("DENY");
	size_t size = strlen(what);
	return deny && !strncmp(deny, what, size) && deny[size] == '=' && !strcmp(deny + size + 1, value);
}

ssize_t sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *to, socklen_t length) {
	const char *deny = getenv("DENY");
	ssize_t (*real)(int, const void *, size_t, int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "sendto");
	if (deny && !strncmp(deny, "word=", 5)) {
		size_t word = strlen(deny + 5) + 1; /* with its final zero */
		char *at = memmem(data, size, deny + 5, word);
		if (at)
			*at = '#'; /* a kind that no kernel knows */
	}
	return real(fd, data, size, flags, to, length);
}

ssize_t send(int fd, const void *data, size_t size, int flags) { return sendto(fd, data, size, flags, NULL, 0); }

long syscall(long number, ...) {
	long a[6];
	va_list list;
	va_start(list, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(list, long);
	va_end(list);
	long (*real)(long, ...) = dlsym(RTLD_NEXT, "syscall");
	char value[32];
	if (number == SYS_bpf && a[0] == 0) {
		value[0] = '0' + *(uint32_t *)a[1] / 10, value[1] = '0' + *(uint32_t *)a[1] % 10, value[2] = 0;
		if (denied("map", value)) { errno = EINVAL; return -1; }
	}
	if (number == SYS_bpf && denied("bpf", "all")) { errno = ENOSYS; return -1; }
	if (number == SYS_unshare && a[0] == 0x20000000 && denied("unshare", "pid")) { errno = EINVAL; return -1; }
	if (number == SYS_unshare && denied("unshare", "forbidden")) { errno = EPERM; return -1; }
	if (number == SYS_mount && denied("mount", (char *)a[2])) { errno = ENODEV; return -1; }
	return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
"""


def preflight(*before: str, environment: dict[str, str] | None = None) -> tuple[int, str]:
    """Exit code and output; asserts that it was quick."""
    start = time.monotonic()
    done = subprocess.run(
        [*before, PREFLIGHT],
        env=os.environ | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert time.monotonic() - start < 3
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("deny")
    (place / "deny.c").write_text(DENY)
    command = ["gcc", "-shared", "-fPIC", "-O1", "-o", str(place / "deny.so"), str(place / "deny.c"), "-ldl"]
    subprocess.run(command, check=True)
    return place / "deny.so"


def test_this_machine_passes(proof: Proof) -> None:
    proof.count("situation root", small=1, full=1)
    code, said = preflight()
    assert (code, said) == (0, "preflight: this machine has all that the lab needs\n")


def test_a_user_without_root_is_told_to_use_sudo() -> None:
    code, said = preflight("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    assert code == 2
    assert "with sudo" in said


def test_root_of_a_container_without_privileges_is_given_the_docker_line_and_the_capabilities(proof: Proof) -> None:
    proof.count("situation container without privileges", small=1, full=1)
    lacking = "-sys_admin,-net_admin"
    code, said = preflight("setpriv", f"--bounding-set={lacking}", "--inh-caps=-all")
    assert code == 2
    assert "lacks CAP_NET_ADMIN, CAP_SYS_ADMIN\n" in said
    assert "docker run -it --privileged" in said


@pytest.mark.parametrize(
    ("deny", "option"),
    [
        ("word=vxlan", "CONFIG_VXLAN"),
        ("word=veth", "CONFIG_VETH"),
        ("word=bridge", "CONFIG_BRIDGE"),
        ("word=clsact", "CONFIG_NET_SCH_INGRESS"),
        ("word=bpf", "CONFIG_NET_CLS_BPF"),
        ("word=masq", "CONFIG_NFT_MASQ"),
        ("word=notrack", "CONFIG_NFT_CT"),
        ("word=reject", "CONFIG_NFT_REJECT_INET"),
        ("word=fib", "CONFIG_NFT_FIB_INET"),
        ("word=addrtype", "CONFIG_NETFILTER_XT_MATCH_ADDRTYPE"),
        ("word=MASQUERADE", "CONFIG_NETFILTER_XT_TARGET_MASQUERADE"),
        ("map=11", "version 4.11"),
        ("map=27", "version 5.8"),
        ("bpf=all", "CONFIG_BPF_SYSCALL"),
        ("mount=overlay", "CONFIG_OVERLAY_FS"),
        ("mount=tmpfs", "CONFIG_TMPFS"),
        ("unshare=pid", "CONFIG_PID_NS"),
        ("unshare=forbidden", "docker run -it --privileged"),
    ],
)
def test_a_kernel_without_a_feature_is_named_with_its_option(
    library: Path, deny: str, option: str, proof: Proof
) -> None:
    proof.count(f"situation kernel without {option}", small=1, full=1)
    code, said = preflight(environment={"LD_PRELOAD": str(library), "DENY": deny})
    assert code == 2
    assert option in said


def test_nothing_denied_passes_through_the_same_library(library: Path) -> None:
    assert preflight(environment={"LD_PRELOAD": str(library)})[0] == 0


def test_all_faults_are_named_at_once(library: Path) -> None:
    _, said = preflight(environment={"LD_PRELOAD": str(library), "DENY": "unshare=forbidden"})
    assert said.count("\n- ") >= 3


# ---- a machine with a Docker of its own -----------------------------------------------------------------------------

INNER = """
mkdir -p /var/lib/hedgerow-lab {disk} && mount --bind {disk} /var/lib/hedgerow-lab
{preflight} && {hedgerow} lab up --name inner --nodes 1 &&
    {hedgerow} lab exec --name inner n1 -- docker run --rm --network dev busybox ip -o addr
{hedgerow} lab down --name inner
umount /var/lib/hedgerow-lab
"""


def own(lab: RunningLab) -> tuple[str, ...]:
    """What the Docker of n1, its owner's machine for this test, looks like."""
    looks = (
        "nft -s list ruleset",
        "ip -br link",
        "ip route",
        "docker ps --format {{.ID}}",
        "cat /proc/sys/net/ipv4/ip_forward",
    )
    return tuple(lab.run("n1", "sh", "-c", look) for look in looks)


def test_a_docker_that_the_machine_has_already_is_left_alone(lab: RunningLab, proof: Proof) -> None:
    """The machine is a node of a lab: it has a Docker and a container of its own, and gets a lab inside."""
    proof.count("situation own Docker", small=1, full=1)
    with lab.container("n1", "docker", "bridge") as name:
        before = own(lab)
        hedgerow = f"{checkout()}/build/hedgerow"
        script = INNER.format(disk="/run/hedgerow-lab/state/inner", preflight=PREFLIGHT, hedgerow=hedgerow)
        said = lab.run("n1", "sh", "-c", script, timeout_s=120)
        assert " 10.64." in said
        assert own(lab) == before
        address = IPv4Address(lab.address("n1", "docker", name, "bridge"))
        assert probe.tcp(Path(f"/proc/{lab.pid('n1')}/ns/net"), address, 80).answer == probe.Answer.REACHED


# ---- installing -----------------------------------------------------------------------------------------------------


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A directory of programs that do nothing."""
    directory = tmp_path / "bin"
    directory.mkdir()
    return directory


def pretend(directory: Path, name: str, script: str = "exit 0") -> None:
    (directory / name).write_text(f"#!/bin/sh\n{script}\n")
    (directory / name).chmod(0o755)


def missing(directory: Path, root: Path) -> set[str]:
    """What would be installed on a machine that has these programs alone: /usr/sbin is empty there."""
    empty = root / "empty"
    empty.mkdir()
    script = f"mount --bind {empty} /usr/sbin && mount --bind {empty} /usr/local/sbin && exec {PACKAGING}/missing run"
    done = subprocess.run(
        ["/usr/bin/unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", script],
        env={"PATH": str(directory)},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_what_is_on_the_path_is_not_installed_again_whoever_brought_it(programs: Path, tmp_path: Path) -> None:
    for name in ("dirname", "mount"):
        (programs / name).symlink_to(f"/usr/bin/{name}")
    for name in ("docker", "dockerd"):
        pretend(programs, name)
    wanted = missing(programs, tmp_path)
    assert "docker.io" not in wanted
    assert {"podman", "clang", "nftables"} <= wanted


def test_apt_may_neither_remove_nor_upgrade_and_no_service_is_started(programs: Path, tmp_path: Path) -> None:
    record = tmp_path / "record"
    starters = "/usr/sbin/invoke-rc.d /usr/bin/deb-systemd-invoke /usr/bin/deb-systemd-helper"
    pretend(
        programs,
        "apt-get",
        f'echo "$*" >>{record}\nfor each in {starters}; do cmp -s $each /bin/true && echo $each >>{record}; done',
    )
    before = [Path(path).read_bytes() for path in starters.split()]
    environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"}
    subprocess.run([PACKAGING / "install", "podman"], env=environment, check=True)
    called, *masked = record.read_text().splitlines()
    assert {"--no-remove", "--no-upgrade", "--no-install-recommends", "install", "podman"} <= set(called.split())
    assert masked == starters.split()
    assert [Path(path).read_bytes() for path in starters.split()] == before


def test_old_lists_are_fetched_anew_and_what_apt_says_is_shown_when_it_fails(programs: Path, tmp_path: Path) -> None:
    record = tmp_path / "record"
    pretend(programs, "apt-get", f'echo "$*" >>{record}\necho "E: Unable to locate package x"\nexit 100')
    environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"}
    done = subprocess.run([PACKAGING / "install", "x"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Unable to locate package x" in done.stderr
    assert [row.split()[-1] for row in record.read_text().splitlines()] == ["x", "update"]
