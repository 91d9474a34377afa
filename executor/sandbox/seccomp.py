"""A seccomp filter: the system calls that a worker is refused, whatever runs in it.

A list of what is denied rather than of what is allowed: numerical libraries call a great deal, and
differ in it between versions. What is denied is what reaches beyond the process: the network, other
processes, and the kernel's administration. Files are `landlock`'s. Numbers are x86-64's, the only
machine whose compute classes exist; see `unavailable`.
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
        # Its submissions never pass a filter: a socket could be made through it.
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
        # The node's memory, which holds its key, and its open files.
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
X32 = 0x4000_0000  # numbers from here on belong to another calling convention
AUDIT_ARCH_X86_64 = 0xC000_003E

LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # classic BPF operations
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data
ALLOW, KILL, REFUSE = 0x7FFF_0000, 0x8000_0000, 0x0005_0000  # REFUSE | errno
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2


class Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))


def unavailable() -> str:
    """Why there can be no filter here, from the machine alone; "" if there can."""
    machine = platform.machine()
    return "" if machine == "x86_64" else f"no filter is written for {machine}"


def deny() -> None:
    """Refuse these calls from now on, to this thread and those that it starts.

    The caller has set no-new-privileges. A refused call fails with EPERM. Raises `OSError` where
    the kernel has no such filters.
    """
    code = assembled()
    buffer = ctypes.create_string_buffer(code, len(code))
    program = Program(len(code) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, errno.errorcode.get(number, "unknown"))


def assembled() -> bytes:
    """The filter as BPF instructions: operation, jumps if true and if false, operand."""
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
        # Its flags are in memory, out of a filter's sight: the C library falls back to clone.
        (EQUAL, 0, 1, CLONE3),
        (RETURN, 0, 0, missing),
        # Threads may be started, processes not.
        (EQUAL, 0, 4, CLONE),
        (LOAD, 0, 0, FIRST_ARGUMENT),
        (ANY_BIT, 1, 0, CLONE_THREAD),
        (RETURN, 0, 0, refuse),
        (RETURN, 0, 0, ALLOW),
        # Limits of its own, not of other processes.
        (EQUAL, 0, 3, PRLIMIT64),
        (LOAD, 0, 0, FIRST_ARGUMENT),
        (EQUAL, 1, 0, 0),
        (RETURN, 0, 0, refuse),
        (RETURN, 0, 0, ALLOW),
    ]
    return b"".join(struct.pack("<HBBI", *step) for step in steps)
