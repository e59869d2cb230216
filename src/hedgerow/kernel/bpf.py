"""eBPF objects from Python: libbpf through ctypes, and the few features of bpf(2) that matter to an agent.

An object's maps are pinned in a directory on bpffs. Loading creates what is missing there, takes over what is there,
and never detaches anything: attachments are a matter of their own, so a process may die at any point and the next goes
on.
Program and map descriptors belong to the object and are closed with it; what is attached or pinned stays.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hedgerow.errors import HedgerowError, NotFound

log = logging.getLogger(__name__)

_TC_INGRESS = 1  # enum bpf_tc_attach_point of libbpf
_TC_REPLACE = 1
HANDLE, PRIORITY = 0x4852, 10
"""Of our programs among a link's filters: not 1 and 1, which others take on a link that is not ours alone."""

_PROG_TEST_RUN = 10  # bpf(2)
_SYS_BPF = {"x86_64": 321, "aarch64": 280}
_BATCH = 4096
_NO_BATCH = (errno.EINVAL, errno.EOPNOTSUPP, 524)  # 524: the kernel's own ENOTSUPP
_IFINDEX_IN_CONTEXT = 40  # offset in struct __sk_buff
_CONTEXT_BYTES = 192

_POINTER_CALLS = (
    "bpf_object__load",
    "bpf_object__close",
    "bpf_program__fd",
    "bpf_map__fd",
    "bpf_map__key_size",
    "bpf_map__value_size",
    "bpf_map__name",
    "bpf_map__pin_path",
    "ring_buffer__free",
    "ring_buffer__consume",
    "ring_buffer__epoll_fd",
)
"""Functions of libbpf whose one argument is a pointer."""

_PRINT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_SAMPLE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


class _OpenOptions(ctypes.Structure):
    """struct bpf_object_open_opts up to pin_root_path (libbpf 1.x)."""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("object_name", ctypes.c_char_p),
        ("relaxed_maps", ctypes.c_bool),
        ("pin_root_path", ctypes.c_char_p),
    )


class _Hook(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_size_t),
        ("ifindex", ctypes.c_int),
        ("attach_point", ctypes.c_int),
        ("parent", ctypes.c_uint32),
    )


class _TcOptions(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_size_t),
        ("prog_fd", ctypes.c_int),
        ("flags", ctypes.c_uint32),
        ("prog_id", ctypes.c_uint32),
        ("handle", ctypes.c_uint32),
        ("priority", ctypes.c_uint32),
    )


class _BatchOptions(ctypes.Structure):
    _fields_ = (("size", ctypes.c_size_t), ("elem_flags", ctypes.c_uint64), ("flags", ctypes.c_uint64))


@_PRINT  # type: ignore[untyped-decorator]
def _to_log(level: int, text: bytes, args: int) -> int:
    """libbpf's messages, the verifier's log among them. What the kernel says of a netlink call (a clsact that is there
    already, or not yet) comes back as an errno as well.
    """
    buffer = ctypes.create_string_buffer(1 << 16)
    _libc().vsnprintf(buffer, len(buffer), text, args)
    message = buffer.value.decode(errors="replace").rstrip()
    quiet = level or "Kernel error message" in message
    log.log(logging.DEBUG if quiet else logging.WARNING, "%s", message)
    return 0


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.vsnprintf.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p]
    return libc


@cache
def _libbpf() -> ctypes.CDLL:
    """Loaded when first needed: modules that only pack records do not need it."""
    try:
        lib = ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError as missing:
        raise HedgerowError(f"libbpf.so.1 cannot be loaded ({missing})", "apt-get install libbpf1") from missing
    for name in ("object__open_file", "object__find_program_by_name", "object__find_map_by_name"):
        getattr(lib, f"bpf_{name}").restype = ctypes.c_void_p
    lib.ring_buffer__new.restype = ctypes.c_void_p
    for name in _POINTER_CALLS:
        getattr(lib, name).argtypes = [ctypes.c_void_p]
    lib.bpf_object__find_program_by_name.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    lib.bpf_object__find_map_by_name.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    lib.bpf_object__next_map.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    lib.bpf_object__next_map.restype = ctypes.c_void_p
    lib.bpf_map__name.restype = lib.bpf_map__pin_path.restype = ctypes.c_char_p
    lib.bpf_map_update_elem.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_uint64]
    lib.bpf_map_lookup_elem.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p]
    lib.bpf_map_delete_elem.argtypes = [ctypes.c_int, ctypes.c_char_p]
    lib.bpf_map_get_next_key.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p]
    lib.ring_buffer__new.argtypes = [ctypes.c_int, _SAMPLE, ctypes.c_void_p, ctypes.c_void_p]
    lib.libbpf_set_print(_to_log)
    return lib


def _check(result: int, what: str) -> int:
    """libbpf 1.x returns -errno and sets errno."""
    if result < 0:
        raise OSError(-result, f"{what}: {os.strerror(-result)}")
    return result


@dataclass(frozen=True, slots=True)
class Map:
    """A map by file descriptor; keys and values are packed bytes. Every call may raise OSError."""

    fd: int
    key_size: int
    value_size: int

    def put(self, key: bytes, value: bytes) -> None:
        """Inserts or replaces in one step: a reader sees the old value or the new one."""
        self._fits(key, value)
        _check(_libbpf().bpf_map_update_elem(self.fd, key, value, 0), "map update")

    def put_many(self, rows: Mapping[bytes, bytes]) -> None:
        """One system call where the kernel can (5.6; tries 5.13), else one by one."""
        if not rows:
            return
        for key, value in rows.items():
            self._fits(key, value)
        count = ctypes.c_uint32(len(rows))
        options = _BatchOptions(size=ctypes.sizeof(_BatchOptions))
        keys, values = b"".join(rows), b"".join(rows.values())
        result = _libbpf().bpf_map_update_batch(self.fd, keys, values, ctypes.byref(count), ctypes.byref(options))
        if -result in _NO_BATCH:
            for key, value in rows.items():
                self.put(key, value)
        else:
            _check(result, "map batch update")

    def get(self, key: bytes, *, copies: int = 1) -> bytes | None:
        """`copies`: the number of possible CPUs for a per-CPU map."""
        buffer = ctypes.create_string_buffer(self.value_size * copies)
        result = _libbpf().bpf_map_lookup_elem(self.fd, key, buffer)
        if result == -errno.ENOENT:
            return None
        _check(result, "map look-up")
        return buffer.raw

    def delete(self, key: bytes) -> bool:
        """Whether it was there."""
        result = _libbpf().bpf_map_delete_elem(self.fd, key)
        if result == -errno.ENOENT:
            return False
        _check(result, "map delete")
        return True

    def all_keys(self) -> Iterator[bytes]:
        """One by one; a key deleted on the way may start the walk anew, so take a list before deleting."""
        key: bytes | None = None
        buffer = ctypes.create_string_buffer(self.key_size)
        while _libbpf().bpf_map_get_next_key(self.fd, key, buffer) == 0:
            key = buffer.raw
            yield key

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All rows of a map that is not per CPU, 4,096 in a system call where the kernel can."""
        keys = ctypes.create_string_buffer(self.key_size * _BATCH)
        values = ctypes.create_string_buffer(self.value_size * _BATCH)
        token = ctypes.create_string_buffer(max(self.key_size, 4))
        options = _BatchOptions(size=ctypes.sizeof(_BatchOptions))
        result, first = 0, True
        while result == 0:
            count = ctypes.c_uint32(_BATCH)
            result = _libbpf().bpf_map_lookup_batch(
                self.fd, None if first else token, token, keys, values, ctypes.byref(count), ctypes.byref(options)
            )
            if first and -result in _NO_BATCH:
                yield from ((key, value) for key in list(self.all_keys()) if (value := self.get(key)) is not None)
                return
            if result != -errno.ENOENT:
                _check(result, "map batch look-up")
            first = False
            yield from self._rows(keys.raw, values.raw, count.value)

    def _rows(self, keys: bytes, values: bytes, count: int) -> Iterator[tuple[bytes, bytes]]:
        k, v = self.key_size, self.value_size
        return ((keys[n * k : (n + 1) * k], values[n * v : (n + 1) * v]) for n in range(count))

    def _fits(self, key: bytes, value: bytes) -> None:
        if len(key) != self.key_size or len(value) != self.value_size:
            raise ValueError(f"{len(key)} + {len(value)} bytes for a map of {self.key_size} + {self.value_size}")


@dataclass(frozen=True, slots=True)
class Program:
    fd: int

    @property
    def id(self) -> int:
        """The kernel's own number of the loaded program."""
        lines = Path(f"/proc/self/fdinfo/{self.fd}").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("prog_id:"))

    def run(self, packet: bytes, *, ifindex: int = 1, repeat: int = 1) -> tuple[int, bytes, int]:
        """Runs it on a made-up packet that goes nowhere: (verdict, the packet afterwards, nanoseconds a run).

        `ifindex` is what the program sees as the interface; it must exist in this namespace.
        """
        out = ctypes.create_string_buffer(len(packet) + 256)
        context = bytearray(_CONTEXT_BYTES)
        struct.pack_into("=I", context, _IFINDEX_IN_CONTEXT, ifindex)
        held = (
            ctypes.create_string_buffer(packet, len(packet)),
            ctypes.create_string_buffer(bytes(context), len(context)),
        )
        data, ctx = map(ctypes.addressof, held)
        attr = bytearray(80)
        struct.pack_into("=IIIIQQIIIIQQ", attr, 0, self.fd, 0, len(packet), len(out), data,
                         ctypes.addressof(out), repeat, 0, len(context), 0, ctx, 0)  # fmt: skip
        buffer = ctypes.create_string_buffer(bytes(attr), len(attr))
        if _libc().syscall(_SYS_BPF[os.uname().machine], _PROG_TEST_RUN, buffer, len(attr)) < 0:
            _check(-ctypes.get_errno(), "test run")
        verdict, _, size = struct.unpack_from("=III", buffer.raw, 4)
        (duration,) = struct.unpack_from("=I", buffer.raw, 36)
        return verdict, out.raw[:size], duration


class Object:
    """A compiled object, loaded, its maps pinned by name in `pins` (and taken from there where they exist)."""

    def __init__(self, path: Path, pins: Path) -> None:
        """Raises HedgerowError when the kernel refuses it; the log has libbpf's words at level debug."""
        lib = _libbpf()
        pins.mkdir(parents=True, exist_ok=True)
        options = _OpenOptions(size=ctypes.sizeof(_OpenOptions), pin_root_path=os.fsencode(pins))
        self._pointer: int | None = lib.bpf_object__open_file(os.fsencode(path), ctypes.byref(options))
        if not self._pointer:
            raise HedgerowError(f"{path} is no eBPF object ({os.strerror(ctypes.get_errno())})", "make build")
        result = lib.bpf_object__load(self._pointer)
        if result < 0:
            self.close()
            raise HedgerowError(
                f"the kernel refuses {path} ({os.strerror(-result)})",
                f"see the log at level debug; if {pins} holds maps of another shape, remove them with their programs",
            )

    def program(self, name: str) -> Program:
        """Raises NotFound."""
        pointer = _libbpf().bpf_object__find_program_by_name(self._pointer, name.encode())
        if not pointer:
            raise NotFound(f"the eBPF object has no program {name}", "make build")
        return Program(_check(_libbpf().bpf_program__fd(pointer), name))

    def map(self, name: str) -> Map:
        """Raises NotFound."""
        lib = _libbpf()
        pointer = lib.bpf_object__find_map_by_name(self._pointer, name.encode())
        if not pointer:
            raise NotFound(f"the eBPF object has no map {name}", "make build")
        return Map(_check(lib.bpf_map__fd(pointer), name), lib.bpf_map__key_size(pointer),
                   lib.bpf_map__value_size(pointer))  # fmt: skip

    def pinned_maps(self) -> dict[str, Map]:
        """Those that have a pin, or should have one: by the file's name."""
        lib, found = _libbpf(), {}
        pointer = lib.bpf_object__next_map(self._pointer, None)
        while pointer:
            if lib.bpf_map__pin_path(pointer):
                name = lib.bpf_map__name(pointer).decode()
                found[name] = self.map(name)
            pointer = lib.bpf_object__next_map(self._pointer, pointer)
        return found

    def close(self) -> None:
        """Frees libbpf's memory and this process's descriptors; pins and attachments stay."""
        if self._pointer:
            _libbpf().bpf_object__close(self._pointer)
            self._pointer = None


def object_file() -> Path:
    """The compiled data path: packaged beside this module, else built in the checkout. Raises NotFound."""
    here = Path(__file__).resolve()
    for path in (here.with_name("hedgerow.bpf.o"), here.parents[3] / "build" / "hedgerow.bpf.o"):
        if path.exists():
            return path
    raise NotFound(f"hedgerow.bpf.o is neither beside {here} nor in build/", "make build")


def attach_clsact(program: Program, ifindex: int) -> None:
    """At tc ingress of an interface of this namespace; replaces in one step what an earlier call attached there.

    Creating a tcx link instead waits for RCU under RTNL (8 ms against 0.2), and its pin can be lost.
    """
    lib = _libbpf()
    hook = _Hook(size=ctypes.sizeof(_Hook), ifindex=ifindex, attach_point=_TC_INGRESS)
    result = lib.bpf_tc_hook_create(ctypes.byref(hook))
    if result != -errno.EEXIST:
        _check(result, f"clsact on interface {ifindex}")
    options = _TcOptions(
        size=ctypes.sizeof(_TcOptions), prog_fd=program.fd, flags=_TC_REPLACE, handle=HANDLE, priority=PRIORITY
    )
    _check(lib.bpf_tc_attach(ctypes.byref(hook), ctypes.byref(options)), f"program on interface {ifindex}")


def attached_id(ifindex: int) -> int:
    """The id of the program that `attach_clsact` put there, 0 when there is none."""
    hook = _Hook(size=ctypes.sizeof(_Hook), ifindex=ifindex, attach_point=_TC_INGRESS)
    options = _TcOptions(size=ctypes.sizeof(_TcOptions), handle=HANDLE, priority=PRIORITY)
    result = _libbpf().bpf_tc_query(ctypes.byref(hook), ctypes.byref(options))
    if -result in (errno.ENOENT, errno.EINVAL, errno.ENODEV):
        return 0
    _check(result, f"program of interface {ifindex}")
    return int(options.prog_id)


class Ring:
    """A ring buffer; `fd` becomes readable, then `consume` calls back once an event."""

    def __init__(self, source: Map, receive: Callable[[bytes], None]) -> None:
        @_SAMPLE  # type: ignore[untyped-decorator]
        def sample(context: int, data: int, size: int) -> int:
            receive(ctypes.string_at(data, size))
            return 0

        self._keep = sample  # libbpf holds only the address
        self._pointer = _libbpf().ring_buffer__new(source.fd, sample, None, None)
        if not self._pointer:
            raise OSError(ctypes.get_errno(), "ring buffer")
        self.fd: int = _libbpf().ring_buffer__epoll_fd(self._pointer)

    def consume(self) -> int:
        """How many events there were."""
        return _check(_libbpf().ring_buffer__consume(self._pointer), "ring buffer")

    def close(self) -> None:
        _libbpf().ring_buffer__free(self._pointer)


@cache
def possible_cpus() -> int:
    """How many values a per-CPU map returns for a key."""
    ranges = Path("/sys/devices/system/cpu/possible").read_text().strip().split(",")
    return sum(int(part.split("-")[-1]) - int(part.split("-")[0]) + 1 for part in ranges)
