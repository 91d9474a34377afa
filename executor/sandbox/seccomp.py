"""A seccomp filter: the system calls that a worker is denied.

It is a list of denied calls, not of allowed ones, because numerical libraries use many calls and
change them between versions. Denied are the calls that reach beyond the process: network, other
processes, administration of the kernel. `landlock` restricts files. The numbers are those of
x86-64, the only machine with compute classes; see `unavailable`.
"""

import ctypes
import errno
import platform
import struct
from collections.abc import Mapping
from types import MappingProxyType

NETWORK: Mapping[str, int] = MappingProxyType(
    {
        "socket": 41,
        "connect": 42,
        "bind": 49,
        "listen": 50,
        # Requests through io_uring bypass the filter, and could open a socket.
        "io_uring_setup": 425,
        "io_uring_enter": 426,
        "io_uring_register": 427,
    }
)
PROCESSES: Mapping[str, int] = MappingProxyType(
    {
        "fork": 57,
        "vfork": 58,
        "execve": 59,
        "execveat": 322,
        # They reach the memory of the node, which holds its key, and its open files.
        "ptrace": 101,
        "process_vm_readv": 310,
        "process_vm_writev": 311,
        "process_madvise": 440,
        "kcmp": 312,
        "pidfd_open": 434,
        "pidfd_getfd": 438,
    }
)
KERNEL: Mapping[str, int] = MappingProxyType(
    {
        "pivot_root": 155,
        "chroot": 161,
        "acct": 163,
        "settimeofday": 164,
        "mount": 165,
        "umount2": 166,
        "swapon": 167,
        "swapoff": 168,
        "reboot": 169,
        "sethostname": 170,
        "setdomainname": 171,
        "iopl": 172,
        "ioperm": 173,
        "init_module": 175,
        "delete_module": 176,
        "quotactl": 179,
        "clock_settime": 227,
        "kexec_load": 246,
        "add_key": 248,
        "request_key": 249,
        "keyctl": 250,
        "unshare": 272,
        "perf_event_open": 298,
        "open_by_handle_at": 304,
        "setns": 308,
        "finit_module": 313,
        "kexec_file_load": 320,
        "bpf": 321,
        "userfaultfd": 323,
        "open_tree": 428,
        "move_mount": 429,
        "fsopen": 430,
        "fsconfig": 431,
        "fsmount": 432,
        "fspick": 433,
        "mount_setattr": 442,
    }
)
CLONE, CLONE3, PRLIMIT64 = 56, 435, 302
CLONE_THREAD = 0x10000
X32 = 0x4000_0000  # numbers from here on are calls of the x32 ABI
AUDIT_ARCH_X86_64 = 0xC000_003E

LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # classic BPF operations
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data
ALLOW, KILL, REFUSE = 0x7FFF_0000, 0x8000_0000, 0x0005_0000  # REFUSE | errno
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2


class Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))


def unavailable() -> str:
    """Return why this machine can have no filter; "" if it can."""
    machine = platform.machine()
    return "" if machine == "x86_64" else f"no filter is written for {machine}"


def deny() -> None:
    """Deny the calls to this thread and those that it starts; a denied call fails with EPERM.

    The caller has set no-new-privileges. Raises `OSError` where the kernel has no such filters.
    """
    code = filter_code()
    buffer = ctypes.create_string_buffer(code, len(code))
    program = Program(len(code) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, errno.errorcode.get(number, "unknown"))


def filter_code() -> bytes:
    """Return the filter as BPF instructions: operation, jumps if true and if false, operand."""
    refuse, missing = REFUSE | errno.EPERM, REFUSE | errno.ENOSYS
    steps = [
        (LOAD, 0, 0, ARCHITECTURE),
        (EQUAL, 1, 0, AUDIT_ARCH_X86_64),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER),
        (AT_LEAST, 0, 1, X32),
        (RETURN, 0, 0, refuse),
    ]
    for number in sorted({*NETWORK.values(), *PROCESSES.values(), *KERNEL.values()}):
        steps += [(EQUAL, 0, 1, number), (RETURN, 0, 0, refuse)]
    steps += [
        # clone3 has its flags in memory, which a filter cannot read. With ENOSYS, the C library
        # falls back to clone.
        (EQUAL, 0, 1, CLONE3),
        (RETURN, 0, 0, missing),
        # clone may start threads, but no processes.
        (EQUAL, 0, 4, CLONE),
        (LOAD, 0, 0, FIRST_ARGUMENT),
        (ANY_BIT, 1, 0, CLONE_THREAD),
        (RETURN, 0, 0, refuse),
        (RETURN, 0, 0, ALLOW),
        # prlimit64 may change this process's limits, not those of others.
        (EQUAL, 0, 3, PRLIMIT64),
        (LOAD, 0, 0, FIRST_ARGUMENT),
        (EQUAL, 1, 0, 0),
        (RETURN, 0, 0, refuse),
        (RETURN, 0, 0, ALLOW),
    ]
    return b"".join(struct.pack("<HBBI", *step) for step in steps)
