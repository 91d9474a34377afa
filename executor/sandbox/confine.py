"""What a worker can reach: the models and its libraries to read, its scratch folder to write.

Entered once, before anything is imported that computes or that reads what strangers wrote. Each
part is put in force by itself, where the kernel has it, and `confine` returns what is in force and
what is not, in words: `WorkerStatus.sandbox`, and `helium doctor`.
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

FILE_BYTES = 536_870_912  # of one file: four times `max_output_bytes` of a network (section 3)
OPEN_FILES = 512
CPU_SECONDS = 7_200  # of one job: one thread, and twice the longest deadline (section 3)

# The system's libraries, and what they ask about the machine. Nothing of a user's.
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
    """Lock this process in: `folders` to read, `scratch` to write, `memory` bytes to live in.

    While it has one thread: threads that run already are not restricted. `memory` None is all that
    the machine has. Returns what is in force by name; "not in force: …" says why something is not.
    """
    bounds = {"memory": limited(memory, device), "privileges": unprivileged()}
    return {**bounds, **confined(folders, scratch, device)}


def limited(memory: int | None, device: Device) -> str:
    """Bound memory, files and core dumps; let the kernel take this process first if short."""
    size = memory or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if device == "cuda":  # it reserves addresses for all that every GPU has
        size = resource.RLIM_INFINITY
    for kind, limit in (
        (resource.RLIMIT_AS, size),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_CORE, 1),  # 1, not 0, also keeps a core from a program that collects them
    ):
        ceiling = resource.getrlimit(kind)[1]
        finite = [each for each in (limit, ceiling) if each != resource.RLIM_INFINITY]
        bound = min(finite, default=resource.RLIM_INFINITY)
        resource.setrlimit(kind, (bound, bound))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    if size == resource.RLIM_INFINITY:
        return "not in force: a GPU's driver reserves more addresses than there is memory"
    return f"{size // 2**20} MiB of addresses"


def extend_cpu_limit(seconds: int = CPU_SECONDS) -> None:
    """Let this process compute so much longer, then end it; for each job anew."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = math.ceil(used.ru_utime + used.ru_stime) + seconds
    ceiling = resource.getrlimit(resource.RLIMIT_CPU)[1]
    if ceiling != resource.RLIM_INFINITY:
        soft = min(soft, ceiling)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, ceiling))


def unprivileged() -> str:
    """No new privileges, and none of those that a worker of root would have."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return f"not in force: {os.strerror(ctypes.get_errno())}"
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    if libc.capset(header, (ctypes.c_uint32 * 6)()) != 0:
        return f"not in force: capset: {os.strerror(ctypes.get_errno())}"
    return "none, and no new ones"


def confined(folders: Sequence[Path], scratch: Path, device: Device) -> dict[str, str]:
    """Files by landlock, network and processes by seccomp."""
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
    """Return what a worker may read besides its scratch folder: models, Python, libraries, us."""
    stdlib = [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")]
    python = [Path(sys.prefix), Path(sys.base_prefix), *stdlib]
    root = Path(__file__).resolve().parents[2]
    packages = [root / name for name in ("executor", "protocol", "schemas")]
    return [*folders, *packages, *python, *map(Path, (*SYSTEM, *MACHINE))]


def folder_granting(path: Path, folders: Sequence[Path]) -> Path | None:
    """The folder that makes a file readable to a worker; None if none does."""
    place = path.resolve()
    return next((each for each in folders if place.is_relative_to(each.resolve())), None)
