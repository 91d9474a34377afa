"""The system calls that a worker may make, by group, with the reason for each group.

Found by tracing real runs of every model family, and widened by what other versions of the C
library, OpenMP, numba and Python use for the same purposes. Each call has its numbers on x86-64 and
on arm64; None where the machine does not have it. A call that is in no group is denied.
"""

from collections.abc import Mapping
from types import MappingProxyType

Numbers = tuple[int | None, int | None]  # x86-64, arm64
Calls = Mapping[str, Numbers]


def _calls(numbers: dict[str, Numbers]) -> Calls:
    return MappingProxyType(numbers)


# The allocator, the loader and just-in-time compilers (numba, libffi). RLIMIT_AS bounds the total.
# Not here: memfd_create and System V memory, which RLIMIT_AS does not count.
MEMORY = _calls(
    {
        "brk": (12, 214),
        "mmap": (9, 222),
        "munmap": (11, 215),
        "mprotect": (10, 226),
        "mremap": (25, 216),
        "madvise": (28, 233),
        "mincore": (27, 232),
        "msync": (26, 227),
        "mseal": (462, 462),
        "pkey_alloc": (330, 289),
        "pkey_free": (331, 290),
        "pkey_mprotect": (329, 288),
        "map_shadow_stack": (453, 453),
        "membarrier": (324, 283),
        "get_mempolicy": (239, 236),
    }
)
# Landlock decides which files. None of these creates or removes a file, or changes its mode, owner,
# times or attributes. Not here: locks and leases, which would delay who writes the file.
FILES = _calls(
    {
        "close": (3, 57),
        "close_range": (436, 436),
        "read": (0, 63),
        "write": (1, 64),
        "readv": (19, 65),
        "writev": (20, 66),
        "pread64": (17, 67),
        "pwrite64": (18, 68),
        "preadv": (295, 69),
        "pwritev": (296, 70),
        "preadv2": (327, 286),
        "pwritev2": (328, 287),
        "lseek": (8, 62),
        "stat": (4, None),
        "lstat": (6, None),
        "fstat": (5, 80),
        "newfstatat": (262, 79),
        "statx": (332, 291),
        "statfs": (137, 43),
        "fstatfs": (138, 44),
        "access": (21, None),
        "faccessat": (269, 48),
        "faccessat2": (439, 439),
        "readlink": (89, None),
        "readlinkat": (267, 78),
        "getdents": (78, None),
        "getdents64": (217, 61),
        "getcwd": (79, 17),
        "chdir": (80, 49),
        "fchdir": (81, 50),
        "umask": (95, 166),
        "fadvise64": (221, 223),
        "readahead": (187, 213),
        "dup": (32, 23),
        "dup2": (33, None),
        "dup3": (292, 24),
        "pipe": (22, None),
        "pipe2": (293, 59),
        "fsync": (74, 82),
        "fdatasync": (75, 83),
    }
)
# Waiting for descriptors and for time. Not here: inotify, whose watches are counted by user.
WAITING = _calls(
    {
        "poll": (7, None),
        "ppoll": (271, 73),
        "select": (23, None),
        "pselect6": (270, 72),
        "epoll_create": (213, None),
        "epoll_create1": (291, 20),
        "epoll_ctl": (233, 21),
        "epoll_wait": (232, None),
        "epoll_pwait": (281, 22),
        "epoll_pwait2": (441, 441),
        "eventfd": (284, None),
        "eventfd2": (290, 19),
        "nanosleep": (35, 101),
        "clock_nanosleep": (230, 115),
        "pause": (34, None),
        "restart_syscall": (219, 128),
    }
)
# Reading clocks and counters; the vDSO falls back to these.
CLOCKS = _calls(
    {
        "clock_gettime": (228, 113),
        "clock_getres": (229, 114),
        "gettimeofday": (96, 169),
        "time": (201, None),
        "times": (100, 153),
        "getrusage": (98, 165),
        "getitimer": (36, 102),
        "setitimer": (38, 103),
        "alarm": (37, None),
        "getcpu": (309, 168),
        "sysinfo": (99, 179),
        "uname": (63, 160),
        "getrandom": (318, 278),
    }
)
# Locks of threads and how the C library starts and ends them.
THREADS = _calls(
    {
        "futex": (202, 98),
        "futex_waitv": (449, 449),
        "futex_wake": (454, 454),
        "futex_wait": (455, 455),
        "futex_requeue": (456, 456),
        "set_robust_list": (273, 99),
        "set_tid_address": (218, 96),
        "rseq": (334, 293),
        "sched_yield": (24, 124),
        "sched_getaffinity": (204, 123),
        "sched_getparam": (143, 121),
        "sched_getscheduler": (145, 120),
        "sched_getattr": (315, 275),
        "sched_get_priority_max": (146, 125),
        "sched_get_priority_min": (147, 126),
        "sched_rr_get_interval": (148, 127),
        "getpriority": (140, 141),
        "exit": (60, 93),
        "exit_group": (231, 94),
        "gettid": (186, 178),
        "arch_prctl": (158, None),
        "wait4": (61, 260),
        "waitid": (247, 95),
    }
)
# This process's own handling of signals.
SIGNALS = _calls(
    {
        "rt_sigaction": (13, 134),
        "rt_sigprocmask": (14, 135),
        "rt_sigreturn": (15, 139),
        "rt_sigpending": (127, 136),
        "rt_sigsuspend": (130, 133),
        "rt_sigtimedwait": (128, 137),
        "sigaltstack": (131, 132),
    }
)
# Who this process is; none of them changes it.
IDENTITY = _calls(
    {
        "getpid": (39, 172),
        "getppid": (110, 173),
        "getpgrp": (111, None),
        "getpgid": (121, 155),
        "getsid": (124, 156),
        "getuid": (102, 174),
        "geteuid": (107, 175),
        "getgid": (104, 176),
        "getegid": (108, 177),
        "getresuid": (118, 148),
        "getresgid": (120, 150),
        "getgroups": (115, 158),
        "capget": (125, 90),
        "getrlimit": (97, 163),
        "setrlimit": (160, 164),
    }
)

# May be made without any condition.
ALLOWED = _calls({**MEMORY, **FILES, **WAITING, **CLOCKS, **THREADS, **SIGNALS, **IDENTITY})

# May be made with certain arguments only: see `seccomp.conditions`.
CONDITIONAL = _calls(
    {
        "open": (2, None),
        "openat": (257, 56),
        "clone": (56, 220),
        "fcntl": (72, 25),
        "ioctl": (16, 29),
        "prctl": (157, 167),
        "kill": (62, 129),
        "tgkill": (234, 131),
        "prlimit64": (302, 261),
        "sched_setaffinity": (203, 122),
        "personality": (135, 92),
    }
)
# Denied with "no such call": the C library then uses an older call, which the filter can read. The
# flags of these are in memory, where a filter cannot look.
UNKNOWN = _calls({"clone3": (435, 435), "openat2": (437, 437)})

# Writing to a folder: only the process that compiles numba's kernels may.
WRITING = _calls(
    {
        "mkdir": (83, None),
        "mkdirat": (258, 34),
        "rename": (82, None),
        "renameat": (264, 38),
        "renameat2": (316, 276),
        "unlink": (87, None),
        "unlinkat": (263, 35),
    }
)
# A GPU's driver also locks and places memory, and shares it with itself. Not run on a GPU yet.
GPU = _calls(
    {
        "memfd_create": (319, 279),
        "ftruncate": (77, 46),
        "mlock": (149, 228),
        "munlock": (150, 229),
        "mlock2": (325, 284),
        "mbind": (237, 235),
        "set_mempolicy": (238, 237),
    }
)
# The numbers of later calls are higher, alike on all machines.
LAST_OLD_CALL = 450
