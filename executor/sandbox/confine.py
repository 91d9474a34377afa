"""Confine this process: it reads models and libraries, and writes to its scratch folder only.

Call `confine` once, before anything is imported that computes or reads what strangers wrote. Each
part is applied by itself where the kernel has it. The result says in words which parts are in force
(`WorkerStatus.sandbox`, `helium doctor`).
"""

import contextlib
import ctypes
import math
import os
import resource
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from executor.determinism.profile import Device
from executor.sandbox import landlock, seccomp

# Of one file: four times a network's default `max_output_bytes` (section 3).
FILE_BYTES = 536_870_912
OPEN_FILES = 512
# Of one job, which has one thread: twice the longest deadline (section 3).
CPU_SECONDS = 7_200

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
PR_SET_NO_NEW_PRIVS = 38
CAPABILITY_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3


def confine(
    folders: Sequence[Path], scratch: Path, memory: int | None, device: Device = "cpu"
) -> dict[str, str]:
    """Confine this process: `folders` to read, `scratch` to write, `memory` bytes of addresses.

    It must have one thread, because threads that run already are not restricted. `memory` None
    means all that the machine has. Returns what is in force by name; "not in force: …" says why a
    part is not.
    """
    limits = {"memory": limit_resources(memory, device), "privileges": drop_privileges()}
    return {**limits, **restrict_access(folders, scratch, device)}


def limit_resources(memory: int | None, device: Device) -> str:
    """Limit memory, files and core dumps, and volunteer for the kernel's out-of-memory killer."""
    size = memory or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if device == "cuda":  # the driver reserves addresses for the memory of every GPU
        size = resource.RLIM_INFINITY
    for kind, limit in (
        (resource.RLIMIT_AS, size),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_CORE, 1),  # 1, unlike 0, also keeps the kernel from piping a core out
    ):
        ceiling = resource.getrlimit(kind)[1]
        finite = [value for value in (limit, ceiling) if value != resource.RLIM_INFINITY]
        bound = min(finite, default=resource.RLIM_INFINITY)
        resource.setrlimit(kind, (bound, bound))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
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


def restrict_access(folders: Sequence[Path], scratch: Path, device: Device) -> dict[str, str]:
    """Restrict files with landlock, network and processes with seccomp."""
    gpu = sorted(Path("/dev").glob("nvidia*")) if device == "cuda" else []
    try:
        version = landlock.restrict(readable_paths(folders), [scratch, Path(SINK)], gpu)
        files = f"landlock {version}"
    except OSError as error:
        version, files = 0, f"not in force: {error.strerror}"
    try:
        if reason := seccomp.unavailable():
            raise OSError(0, reason)
        seccomp.deny()
        network = processes = "seccomp"
    except OSError as error:
        processes = f"not in force: {error.strerror}"
        tcp = "landlock: no TCP, all else is open" if version >= 4 else ""
        network = tcp or processes
    return {"files": files, "network": network, "processes": processes}


def readable_paths(folders: Sequence[Path]) -> list[Path]:
    """Return what a worker may read besides its scratch folder: models, Python, our packages."""
    stdlib = [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")]
    python = [Path(sys.prefix), Path(sys.base_prefix), *stdlib]
    root = Path(__file__).resolve().parents[2]
    packages = [root / name for name in ("executor", "protocol", "schemas")]
    return [*folders, *packages, *python, *map(Path, (*SYSTEM, *MACHINE))]


def folder_granting(path: Path, folders: Sequence[Path]) -> Path | None:
    """Return the folder that makes a file readable to a worker; None if none does."""
    target = path.resolve()
    return next((f for f in folders if target.is_relative_to(f.resolve())), None)
