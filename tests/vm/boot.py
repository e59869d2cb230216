"""Runs the tests of the data path on Debian's own kernels: boots each under qemu, without KVM and without a network.

    python -m vm.boot [--kernels 6.1,5.10,6.12|all] [--tests tests/bpf ...] [-- PYTEST ARGUMENT...]
    python -m vm.boot --shell --kernels 6.1      a shell in the machine, on this terminal; `poweroff -f` leaves it

The machine has no disk. Its console goes to a log in the cache and, as it comes, to standard output; `init` closes with
the status of pytest. A kernel that warns fails the run, whatever pytest says. Needs amd64, qemu-system-x86 and apt, not
root. With HEDGEROW_PROVE=1 each run is a row of build/proof.json, and those that passed at this commit are left out.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from conftest import PROVING, commit, proven, record
from vm.image import Kernel, kernel, stage_project, userland, write_archive

CHECKOUT = Path(__file__).resolve().parent.parent.parent
SUITES = {"6.1": "bookworm", "5.10": "bullseye", "6.12": "bookworm-backports"}
SLOWNESS = "5"
"""What tests multiply their time limits by. Not more: a refusal that needed a retransmit, 1 s, must still fail."""
LIMIT_S = 1500
"""A machine that takes longer hangs."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended. `status` is None when the machine gave none."""

    release: str
    status: int | None
    summary: str
    seconds: float

    def __str__(self) -> str:
        match self.status:
            case None:
                said = "the machine ended without a result"
            case 0:
                said = "no complaint of the kernel"
            case 99:
                said = "THE KERNEL COMPLAINED (see its log above)"
            case _:
                said = f"failed with status {self.status}"
        return f"kernel {self.release}: {said}, {self.seconds:.0f} s in all"


def job(arguments: list[str], tests: list[str], shell: bool) -> str:
    """What `init` runs, as a shell function."""
    command = ["python3", "-m", "pytest", "-p", "no:cacheprovider", "--color=no", *tests, *arguments]
    # Not straight to the console: on a terminal pytest draws its progress over itself.
    words = "sh; echo 0 >/tmp/status" if shell else f"{{ {shlex.join(command)}; echo $? >/tmp/status; }} 2>&1 | cat"
    return f"export HEDGEROW_SLOWNESS={SLOWNESS} COLUMNS=100 PYTHONUNBUFFERED=1\njob() {{ {words}; }}\n"


def qemu(kernel: Kernel, memory: Path) -> list[str]:
    return [
        "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2048",
        "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio",
        "-kernel", str(kernel.image), "-initrd", str(memory),
        "-append", "console=ttyS0 panic=-1 quiet rdinit=/init",
    ]  # fmt: skip


def watch(command: list[str], log: Path) -> bytes:
    """Runs the machine; what it says goes to standard output and to the log, but for the lines meant for us."""
    machine = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert machine.stdout
    alarm = threading.Timer(LIMIT_S, machine.kill)
    alarm.start()
    said = b""
    try:
        with log.open("wb") as file:
            while data := os.read(machine.stdout.fileno(), 65536):
                said += data.replace(b"\r", b"")
                file.write(data.replace(b"\r", b""))
                os.write(1, data.replace(b"\r", b""))
    finally:
        alarm.cancel()
        machine.kill()
        machine.wait()
    return said


def outcome(release: str, said: str, seconds: float) -> Outcome:
    status = re.search(r"^RESULT (\d+)", said, re.M)
    summaries = re.findall(r"^=+ .*\b(?:passed|failed|error|no tests ran)\b.* =+$", said, re.M)
    return Outcome(release, int(status[1]) if status else None, summaries[-1] if summaries else "", seconds)


def run(version: str, cache: Path, options: argparse.Namespace) -> Outcome:
    started = time.monotonic()
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two runs at once: the second takes what the first made
        root = userland(cache).with_suffix(".cpio")
        found = kernel(version, SUITES[version], cache)
    with tempfile.TemporaryDirectory(dir=cache) as directory:
        stage, memory = Path(directory, "stage"), Path(directory, "initramfs")
        stage_project(CHECKOUT, stage, options.tests, job(options.arguments, options.tests, options.shell))
        with memory.open("wb") as whole:
            for part in (root, found.modules):
                with part.open("rb") as piece:
                    shutil.copyfileobj(piece, whole)
            write_archive(stage, whole)
        print(f"kernel {found.release}: booting ({time.monotonic() - started:.0f} s to make it ready)", flush=True)
        if options.shell:
            return Outcome(found.release, subprocess.call(qemu(found, memory)), "", time.monotonic() - started)
        said = watch(qemu(found, memory), Path(directory, "log")).decode(errors="replace")
        Path(directory, "log").replace(cache / f"{found.release}.log")
    return outcome(found.release, said, time.monotonic() - started)


def options_from(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Runs the tests of the data path on Debian's own kernels.")
    parser.add_argument("--kernels", default="6.1", help=f"all, or some of {','.join(SUITES)} (default: 6.1)")
    parser.add_argument("--tests", nargs="+", default=["tests/bpf"], help="directories of the checkout")
    parser.add_argument("--cache", type=Path, default=CHECKOUT / "build" / "vm", help="default: build/vm")
    parser.add_argument("--shell", action="store_true", help="a shell instead of the tests")
    parser.add_argument("arguments", nargs="*", help="for pytest")
    options = parser.parse_args(words)
    options.kernels = list(SUITES) if options.kernels == "all" else options.kernels.split(",")
    unknown = set(options.kernels) - set(SUITES)
    if unknown:
        parser.error(f"unknown kernel {', '.join(sorted(unknown))}: there are {', '.join(SUITES)}")
    return options


def main(words: list[str]) -> int:
    options = options_from(words)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the machine and its directory go as well
    if platform.machine() != "x86_64" or not shutil.which("qemu-system-x86_64"):
        print("qemu-system-x86_64 on an amd64 machine is needed: apt-get install -y qemu-system-x86", file=sys.stderr)
        return 2
    if not (CHECKOUT / "build" / "hedgerow.bpf.o").exists():
        print("build/hedgerow.bpf.o is missing: make build", file=sys.stderr)
        return 2
    options.cache.mkdir(parents=True, exist_ok=True)
    outcomes = []
    for version in left_to_run(options):
        outcomes.append(run(version, options.cache, options))
        if PROVING:
            write_down(version, options, outcomes[-1])
    for result in outcomes:  # pytest's own line comes last, where whoever counts tests looks for it
        print(result, result.summary, sep="\n" if result.summary else "", flush=True)
    return max(((1 if result.status is None else result.status) for result in outcomes), default=0)


def named(version: str, options: argparse.Namespace) -> str:
    """A run, in the record of what was proven."""
    return " ".join(["make test-kernels", version, *options.tests, *options.arguments])


def left_to_run(options: argparse.Namespace) -> Iterator[str]:
    """The kernels to boot: all but, when proving, those that passed at this commit."""
    for version in options.kernels:
        if PROVING and named(version, options) in proven(commit()):
            print(f"kernel {version}: passed at this commit already", flush=True)
        else:
            yield version


def write_down(version: str, options: argparse.Namespace, ended: Outcome) -> None:
    """As a row of build/proof.json: how many tests passed, on which kernel."""
    passed = re.search(r"(\d+) passed", ended.summary)
    row = {"id": f"kernel {version}", "count": int(passed[1]) if passed else 0, "seed": 0, "release": ended.release}
    record(named(version, options), "passed" if ended.status == 0 else "failed", [row], now=commit())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
