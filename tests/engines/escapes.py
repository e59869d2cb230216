"""Tries of an app without an image to read or change what is the host's. Each is shell that prints something when it
succeeds, and nothing when it is held. They need only what every Debian host has.
"""

from __future__ import annotations


def python(code: str) -> str:
    """Python of the host, in shell; `c` is the C library. `code` has no single quote."""
    return f"/usr/bin/python3 -c '\nimport ctypes, os, platform, socket\nc = ctypes.CDLL(None)\n{code}'"


def speaks(family: str, *targets: str) -> str:
    """Whoever answers at one of the targets, which are Python expressions of addresses."""
    return python(
        f"for target in [{', '.join(targets)}]:\n"
        " try:\n"
        f"  s = socket.socket(socket.{family})\n"
        "  s.settimeout(2)\n"
        "  s.connect(target)\n"
        '  s.send(b"GET / HTTP/1.0\\r\\nHost: x\\r\\n\\r\\n")\n'
        "  print(target, s.recv(99))\n"
        " except OSError:\n"
        "  pass\n"
    )


def sockets(*names: str) -> str:
    return speaks("AF_UNIX", *(f'"{place}/{name}"' for name in names for place in ("/run", "/var/run")))


def inside(*places: str) -> str:
    return f"find {' '.join(places)} -mindepth 1"


TRIES = {
    "read shadow": "cat /etc/shadow",
    "read gshadow": "cat /etc/gshadow",
    "read the old shadow": "cat /etc/shadow- /etc/gshadow-",
    "read sudoers": "cat /etc/sudoers /etc/sudoers.d/*",
    "read keys of ssh": "cat /etc/ssh/ssh_host_*_key",
    "read private keys of TLS": inside("/etc/ssl/private", "/etc/letsencrypt"),
    "read the home of root": inside("/root"),
    "read the homes of users": inside("/home"),
    "read what runs leave in run": inside("/run"),
    "read state and logs in var": inside("/var") + " -not -path /var/tmp",
    "read keys and tokens": "find /var/lib/hedgerow-lab /var/lib/hedgerow /etc/hedgerow -type f",
    "read the settings of the agent": inside("/etc/hedgerow"),
    "read the settings of the engines": inside("/etc/docker", "/etc/containers", "/etc/cni"),
    "read temporary files of others": inside("/tmp", "/var/tmp"),
    "read the boot files": inside("/boot"),
    "speak to the engines": sockets("docker.sock", "podman/podman.sock", "docker/containerd/containerd.sock"),
    "speak to the agent": sockets("hedgerow/agent.sock", "hedgerow/calls.sock")
    + "; "
    + speaks("AF_INET", '("127.0.0.1", 9642)'),
    "find abstract sockets of the host": "grep @ /proc/net/unix",
    "see processes of the host": "grep -l -E 'dockerd|containerd|podman' /proc/[0-9]*/comm",
    "reach files by the root of another process": inside("/proc/[0-9]*/root/etc/hedgerow", "/proc/[0-9]*/root/run"),
    "become root by a program that is setuid": "for f in $(find /usr -xdev -perm -4000); do case $f in "
    "*/su) echo | $f -c 'id -u';; *sudo) $f -n id -u;; esac; done | grep -x 0",
    "gain rights by a program at all": "grep -E 'NoNewPrivs:.0' /proc/self/status",
    "hold a capability": "grep -E '^Cap(Prm|Eff|Bnd|Amb):' /proc/self/status | grep -v 0000000000000000",
    "be root": "id -u | grep -x 0",
    "make a user namespace": "unshare --user --map-root-user id -u",
    "make a mount namespace": "unshare --mount echo made",
    "enter the namespaces of the first process": "nsenter --target 1 --mount --net echo entered",
    "mount": "mount -t tmpfs tmpfs /mnt && echo mounted; mount --bind /etc /mnt && echo bound",
    "look below what hides": "umount /etc/shadow && cat /etc/shadow; umount /var && find /var -name '*.key'",
    "change root": "chroot / echo changed",
    "make a device": "mknod /tmp/disk b 254 0 && echo made",
    "read a disk or memory": "for d in /dev/[vs]d? /dev/nvme0n1 /dev/mem /dev/port; do head -c 16 $d | base64; done",
    "read the log and the symbols of the kernel": "dmesg | head -1; timeout 1 head -c 1 /dev/kmsg; "
    "grep -m 1 -v '^0000000000000000' /proc/kallsyms",
    "read kernel memory and keys": "head -c 16 /proc/kcore | base64; cat /proc/keys",
    "change a setting of the kernel": "for f in kernel/core_pattern kernel/hostname vm/swappiness; do "
    "(echo 1 >/proc/sys/$f) && echo $f; done; (echo h >/proc/sysrq-trigger) && echo sysrq",
    "leave by a release agent": inside("/sys/fs/cgroup")
    + "; for f in $(find /sys/fs/cgroup -name release_agent); do (echo /tmp/x >$f) && echo $f; done",
    "read the pins of the data path": inside("/sys/fs/bpf", "/run/hedgerow/bpf"),
    "open a file by its handle": python(
        "class Handle(ctypes.Structure):\n"
        ' _fields_ = [("size", ctypes.c_uint), ("kind", ctypes.c_int), ("inode", ctypes.c_uint64)]\n'
        "handle = Handle(8, 1, 2)\n"
        'found = c.open_by_handle_at(os.open("/", os.O_RDONLY), ctypes.byref(handle), os.O_RDONLY)\n'
        'if found >= 0: print("opened")'
    ),
    "make a map of eBPF": python(
        "attributes = ctypes.create_string_buffer(128)\n"
        "ctypes.memmove(attributes, (ctypes.c_uint * 4)(1, 4, 4, 1), 16)\n"
        'number = {"x86_64": 321}.get(platform.machine(), 280)\n'
        'if c.syscall(number, 0, attributes, 128) >= 0: print("made")'
    ),
    "forge frames": python('socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\nprint("opened")'),
    "forge packets": python('socket.socket(socket.AF_INET, socket.SOCK_RAW, 255)\nprint("opened")'),
    "change its own network": "ip addr add 9.9.9.9/32 dev eth0 && echo address; ip link set eth0 down && echo link",
    "ask the cloud for credentials": speaks("AF_INET", '("169.254.169.254", 80)'),
    "reach services of hosts": speaks(
        "AF_INET", *(f'("192.168.78.{host}", {port})' for host in (1, 2, 3, 250) for port in (9642, 8080, 8081))
    ),
    "write to the programs of the host": "for d in /usr/bin /usr/lib /etc /opt; do (echo x >$d/.try) && echo $d; done",
    "put a file where cron finds it": "(echo x >/etc/cron.d/x) && echo cron; mkdir -p /var/spool/cron/x && echo spool",
}

CONTROLS = (
    "read shadow",
    "read gshadow",
    "read what runs leave in run",
    "read state and logs in var",
    "read keys and tokens",
    "read the settings of the agent",
    "read the settings of the engines",
    "speak to the engines",
    "speak to the agent",
    "see processes of the host",
    "gain rights by a program at all",
    "hold a capability",
    "be root",
    "make a mount namespace",
    "read the pins of the data path",
    "make a map of eBPF",
    "forge frames",
    "forge packets",
)
"""Tries that do no harm when the host's root makes them in a node, and must then find something."""


def script(tries: dict[str, str]) -> str:
    """Says `name: held` or `name: ESCAPED what it printed` for each try."""
    lines = [
        f"out=$( ( {shell} ) 2>/dev/null | head -c 200 | tr '\\n\\0' '  ')\n"
        f'if [ -z "$out" ]; then echo "{name}: held"; else echo "{name}: ESCAPED $out"; fi'
        for name, shell in tries.items()
    ]
    return "\n".join([*lines, "echo tries are over"])
