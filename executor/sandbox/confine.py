"""Confine this process: it reads models and libraries, and writes to no file.

Call `confine` once, before anything is imported that computes or reads what strangers wrote. Each
part is applied by itself where the kernel has it. The result says in words which parts are in force
(`WorkerStatus.sandbox`, `helium doctor`).

A worker's outputs go to its supervisor over its socket, so it needs no file to write. That bounds
what it can put on a disk, at any kernel: `RLIMIT_FSIZE` is 0.
"""

import contextlib
import ctypes
import math
import os
import resource
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from executor.determinism.profile import Device
from executor.sandbox import landlock, seccomp

# Of a file that the process which compiles kernels may write; numba's are below 1 MB.
KERNEL_BYTES = 67_108_864
OPEN_FILES = 512
# Of one job and thread: twice the longest default deadline (section 3).
CPU_SECONDS = 7_200

# What Python needs of the folder that it is installed in.
PYTHON = ("bin", "include", "lib", "lib64", "share", "pyvenv.cfg")
# The system's libraries, and what they read about the machine. No file of a user.
SYSTEM = ("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime")
MACHINE = (
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/driver/nvidia",
    "/proc/sys/kernel",
    "/proc/sys/vm",
    "/sys/devices/system",
    "/sys/fs/cgroup",
    "/dev/urandom",
)
SINK = "/dev/null"
# What the filter of system calls holds back, by the names of a `WorkerStatus.sandbox`.
CALLS: Mapping[str, str] = MappingProxyType(
    {
        "network": "seccomp: no socket of any kind",
        "processes": "seccomp: no new process, no signal, priority or trace for another one",
        "metadata": "seccomp: no change of a file's mode, owner, times or attributes",
        "shared": "seccomp: no memfd, System V or POSIX objects, which would escape the limits",
        "calls": "",
    }
)
PR_SET_NO_NEW_PRIVS = 38
CAPABILITY_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3


def confine(
    folders: Sequence[Path],
    memory: int | None,
    device: Device = "cpu",
    writable: Path | None = None,
) -> dict[str, str]:
    """Confine this process: `folders` to read, `memory` bytes of addresses, nothing to write.

    It must have one thread, because threads that run already are not restricted. `memory` None
    means all that the machine has. `writable` is the one folder in which files may be made, for a
    process that reads nothing of strangers. Returns what is in force by name; "not in force: …"
    says why a part is not, and "in part: …" what is missing.
    """
    limits = {
        "memory": limit_resources(memory, device, KERNEL_BYTES if writable else 0),
        "disk": "no byte to any file" if writable is None else f"{KERNEL_BYTES} bytes to a file",
        "privileges": drop_privileges(),
    }
    return {**limits, **restrict_access(folders, device, writable)}


def limit_resources(memory: int | None, device: Device, file_bytes: int) -> str:
    """Limit memory, files and core dumps, and volunteer for the kernel's out-of-memory killer."""
    size = memory or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if device == "cuda":  # the driver reserves addresses for the memory of every GPU
        size = resource.RLIM_INFINITY
    # First: it is the one file that this process writes itself.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    for kind, limit in (
        (resource.RLIMIT_AS, size),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_CORE, 1),  # 1, unlike 0, also keeps the kernel from piping a core out
        # Not counted by RLIMIT_AS: POSIX message queues, and pages that cannot be swapped.
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_MEMLOCK, 0 if device == "cpu" else resource.RLIM_INFINITY),
    ):
        ceiling = resource.getrlimit(kind)[1]
        finite = [value for value in (limit, ceiling) if value != resource.RLIM_INFINITY]
        bound = min(finite, default=resource.RLIM_INFINITY)
        resource.setrlimit(kind, (bound, bound))
    if size == resource.RLIM_INFINITY:
        return "not in force: a GPU's driver reserves more addresses than there is memory"
    return f"{size // 2**20} MiB of addresses"


def extend_cpu_limit(seconds: int = CPU_SECONDS) -> None:
    """Allow this process so many more seconds of CPU time; the kernel ends it after them."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = math.ceil(used.ru_utime + used.ru_stime) + seconds
    ceiling = resource.getrlimit(resource.RLIMIT_CPU)[1]
    if ceiling != resource.RLIM_INFINITY:
        soft = min(soft, ceiling)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, ceiling))


def drop_privileges() -> str:
    """Drop all capabilities, which a worker of root has, and forbid new privileges."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return f"not in force: {os.strerror(ctypes.get_errno())}"
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    if libc.capset(header, (ctypes.c_uint32 * 6)()) != 0:
        return f"not in force: capset: {os.strerror(ctypes.get_errno())}"
    return "none, and no new ones"


def restrict_access(
    folders: Sequence[Path], device: Device, writable: Path | None
) -> dict[str, str]:
    """Restrict files with landlock, system calls with seccomp; return what is in force."""
    gpu = sorted(Path("/dev").glob("nvidia*")) if device == "cuda" else []
    try:
        version = landlock.restrict(
            readable_paths(folders), [*([writable] if writable else []), Path(SINK)], gpu
        )
        files = landlock.describe(version)
    except OSError as error:
        version, files = 0, f"not in force: {error.strerror}"
    try:
        if reason := seccomp.unavailable():
            raise OSError(0, reason)
        allowed = seccomp.restrict(
            read_only=version < landlock.TRUNCATE_VERSION and not writable,
            writes=writable is not None,
            gpu=device == "cuda",
        )
    except OSError as error:
        missing = f"not in force: {error.strerror}"
        return {"files": files, **dict.fromkeys(CALLS, missing), **landlock.substitutes(version)}
    if not version:
        files += "; seccomp: none can be opened for writing"
    return {"files": files, **CALLS, "calls": f"seccomp: {allowed} allowed, all others denied"}


def readable_paths(folders: Sequence[Path]) -> list[Path]:
    """Return what a worker may read: `folders`, Python, our packages, the system's libraries."""
    stdlib = [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")]
    # Not all of a prefix: a data folder may lie in the one of a virtual environment.
    prefixes = (Path(sys.prefix), Path(sys.base_prefix))
    python = [*(prefix / name for prefix in prefixes for name in PYTHON), *stdlib]
    root = Path(__file__).resolve().parents[2]
    packages = [root / name for name in ("executor", "protocol", "schemas")]
    return [*folders, *packages, *python, *map(Path, (*SYSTEM, *MACHINE))]


def folder_granting(path: Path, folders: Sequence[Path]) -> Path | None:
    """Return the folder that makes a file readable to a worker; None if none does."""
    target = path.resolve()
    return next((f for f in folders if target.is_relative_to(f.resolve())), None)
