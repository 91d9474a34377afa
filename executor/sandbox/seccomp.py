"""A seccomp filter: a worker makes the system calls of `syscalls`, and no others.

Denied calls fail with an error instead of ending the process, because libraries probe for calls
that they can do without. What is older than the list fails with EPERM; what is newer with ENOSYS,
as on a kernel that does not have it yet. Calls of another architecture, and of x32, whose numbers
mean other calls, end the process. The filter reads registers only: pointers and structures, such as
a path, are the business of `landlock`.
"""

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from executor.sandbox import syscalls
from executor.sandbox.syscalls import Calls

LOAD, EQUAL, AT_LEAST, AND, RETURN = 0x20, 0x15, 0x35, 0x54, 0x06  # classic BPF operations
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
ALLOW, KILL, REFUSE = 0x7FFF_0000, 0x8000_0000, 0x0005_0000  # REFUSE | errno
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
X32 = 0x4000_0000  # on x86-64, numbers from here on are calls of the x32 ABI

# The AUDIT_ARCH of each machine, and the place of its numbers in `syscalls`.
MACHINES: Mapping[str, tuple[int, int]] = MappingProxyType(
    {"x86_64": (0xC000_003E, 0), "aarch64": (0xC000_00B7, 1)}
)

# clone: a thread of this process, in its namespaces, without a descriptor or a tracer.
CLONE_THREAD = 0x10000
CLONE_BITS = CLONE_THREAD | 0x7E02_0000 | 0x1000 | 0x2000 | 0x0080_0000
# open: bits of a call that creates or changes a file, and of an unnamed file (O_TMPFILE).
OPEN_TO_WRITE, UNNAMED = 0o3 | 0o100 | 0o1000, 0o20000000
# fcntl: duplicates, flags and the size of a pipe. Not the owner of signals, locks, leases, seals.
FCNTL = (0, 1, 2, 3, 4, 1030, 1032, 1034)
# ioctl: what kind of descriptor it is, and its flags. Not attributes of files, not terminal input.
IOCTL = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451, 0x802C_542A)
# prctl: the thread's name, the names of mappings, and what can be read. Not PR_SET_DUMPABLE: the
# supervisor reads this process's state.
PRCTL = (3, 15, 16, 21, 23, 30, 39, 42, 51, 56, 64, 0x5356_4D41)

Step = tuple[int, int, int, int]  # operation, jumps if true and if false, operand


@dataclass(frozen=True, slots=True)
class Condition:
    """Argument number `argument`, of 32 bits, must be one of `values` after `mask` is applied."""

    argument: int
    values: Sequence[int]
    mask: int = 0xFFFF_FFFF
    error: int = errno.EPERM


class Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))


def unavailable() -> str:
    """Return why this machine can have no filter; "" if it can."""
    machine = platform.machine()
    if machine in MACHINES and sys.maxsize > 2**32:
        return ""
    return f"no filter is written for {machine}"


def restrict(*, read_only: bool, writes: bool = False, gpu: bool = False) -> int:
    """Restrict this thread, and those that it starts, to the listed calls; return their number.

    With `read_only` no file can be opened for writing: for kernels whose landlock does not see to
    it. With `writes` files may be created and removed, `gpu` adds what a GPU's driver needs. The
    caller has set no-new-privileges. Raises `OSError` where the kernel has no such filters.
    """
    machine = platform.machine()
    calls = {**syscalls.ALLOWED, **(syscalls.WRITING if writes else {})}
    calls |= syscalls.GPU if gpu else {}
    limited = conditions(os.getpid(), read_only=read_only, writes=writes, gpu=gpu)
    code = filter_code(machine, calls, limited)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = Program(len(code) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, errno.errorcode.get(number, "unknown"))
    return len(numbers(machine, calls)) + len(numbers(machine, syscalls.CONDITIONAL))


def conditions(pid: int, *, read_only: bool, writes: bool, gpu: bool) -> dict[str, Condition]:
    """Return the condition of each call of `syscalls.CONDITIONAL` for the process `pid`."""
    denied = 0 if writes else UNNAMED | (OPEN_TO_WRITE if read_only else 0)
    itself = Condition(0, (0, pid))
    return {
        "open": Condition(1, (0,), denied, errno.EACCES),
        "openat": Condition(2, (0,), denied, errno.EACCES),
        "clone": Condition(0, (CLONE_THREAD,), CLONE_BITS),
        "fcntl": Condition(1, FCNTL),
        # ENOTTY is what `isatty` and its like expect.
        "ioctl": Condition(1, (0,), 0) if gpu else Condition(1, IOCTL, error=errno.ENOTTY),
        "prctl": Condition(0, PRCTL),
        # A process that raises a signal names itself; 0 would be its whole group.
        "kill": Condition(0, (pid,)),
        "tgkill": Condition(0, (pid,)),
        "prlimit64": itself,
        "sched_setaffinity": itself,
        "personality": Condition(0, (0xFFFF_FFFF,)),  # asks, and changes nothing
    }


def numbers(machine: str, calls: Calls) -> dict[str, int]:
    """Return the calls that a machine has, with their numbers."""
    place = MACHINES[machine][1]
    return {name: n for name, both in calls.items() if (n := both[place]) is not None}


def filter_code(machine: str, allowed: Calls, limited: Mapping[str, Condition]) -> bytes:
    """Return the filter as BPF instructions: operation, jumps if true and if false, operand."""
    steps: list[Step] = [
        (LOAD, 0, 0, ARCHITECTURE),
        (EQUAL, 1, 0, MACHINES[machine][0]),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER),
    ]
    if machine == "x86_64":
        steps += [(AT_LEAST, 0, 1, X32), (RETURN, 0, 0, KILL)]
    for name, number in numbers(machine, syscalls.CONDITIONAL).items():
        check = condition_steps(limited[name])
        steps += [(EQUAL, 0, len(check), number), *check]
    for number in numbers(machine, allowed).values():
        steps += [(EQUAL, 0, 1, number), (RETURN, 0, 0, ALLOW)]
    for number in numbers(machine, syscalls.UNKNOWN).values():
        steps += [(EQUAL, 0, 1, number), (RETURN, 0, 0, REFUSE | errno.ENOSYS)]
    steps += [
        (AT_LEAST, 0, 1, syscalls.LAST_OLD_CALL + 1),
        (RETURN, 0, 0, REFUSE | errno.ENOSYS),
        (RETURN, 0, 0, REFUSE | errno.EPERM),
    ]
    return b"".join(struct.pack("<HBBI", *step) for step in steps)


def condition_steps(condition: Condition) -> list[Step]:
    """Return the steps that allow a call if a condition holds, and refuse it otherwise."""
    steps: list[Step] = [
        (LOAD, 0, 0, ARGUMENTS + 8 * condition.argument),  # the low half, on little-endian machines
        (AND, 0, 0, condition.mask),
    ]
    for value in condition.values:
        steps += [(EQUAL, 0, 1, value), (RETURN, 0, 0, ALLOW)]
    return [*steps, (RETURN, 0, 0, REFUSE | condition.error)]
