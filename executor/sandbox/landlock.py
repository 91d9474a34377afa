"""Landlock: limit the files that a process can reach, and where the kernel has it, TCP and signals.

See the kernel's `Documentation/userspace-api/landlock.rst`. A rule grants rights to a whole folder,
and rules only add up, so a protected file must not lie under a granted folder.
"""

import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # system calls, alike on all machines
VERSION_FLAG, PATH_BENEATH = 1, 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REMOVE_DIR, REMOVE_FILE, MAKE_DIR, MAKE_REG = 1 << 4, 1 << 5, 1 << 7, 1 << 8
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15

READ = READ_FILE | READ_DIR
# No links, devices or sockets, and nothing moved in from elsewhere: the node reads the files of the
# writable folder afterwards, and must find plain files.
WRITE = READ | WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | TRUNCATE
DEVICE = READ | WRITE_FILE | IOCTL_DEV
# The rights that a rule for a single file may grant.
FILE_ONLY = WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
TCP = 0b11  # bind and connect
SCOPES = 0b11  # abstract sockets and signals to processes outside


# The versions from which on a restriction exists, and the kernel that brought it.
TRUNCATE_VERSION = 3


def describe(version: int) -> str:
    """Return what a version of landlock enforces on files, in words."""
    if version < TRUNCATE_VERSION:
        return f"in part: landlock {version} lets files be truncated: Linux 6.2 does not"
    return f"landlock {version}: models and libraries to read, none to write"


def substitutes(version: int) -> dict[str, str]:
    """Return what landlock enforces, by name, where there is no filter of system calls."""
    tcp = {"network": "in part: landlock: no TCP, all else is open"} if version >= 4 else {}
    signals = {"processes": "in part: landlock: no signal to another process"}
    return tcp | (signals if version >= 6 else {})


def abi() -> int:
    """Return the version of the kernel's landlock; 0 if it has none."""
    libc = ctypes.CDLL(None)
    return max(0, int(libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), VERSION_FLAG)))


def handled(version: int) -> tuple[int, int, int]:
    """Return what a version can restrict as bit masks: file rights, TCP rights, scopes."""
    files = (1 << 13) - 1
    files |= REFER if version >= 2 else 0
    files |= TRUNCATE if version >= 3 else 0
    files |= IOCTL_DEV if version >= 5 else 0
    return files, TCP if version >= 4 else 0, SCOPES if version >= 6 else 0


def restrict(
    readable: Iterable[Path], writable: Iterable[Path], devices: Iterable[Path] = ()
) -> int:
    """Restrict this thread, and those that it starts, to these files and folders.

    The caller has set no-new-privileges. Paths that do not exist are skipped. Returns the version
    of landlock that is now in force. Raises `OSError` where the kernel has none.
    """
    version = abi()
    if version == 0:
        raise OSError(0, "this kernel has no landlock")
    rights = handled(version)
    ruleset = syscall(CREATE_RULESET, struct.pack("=QQQ", *rights), ctypes.c_size_t(24), 0)
    try:
        for paths, grant in ((readable, READ), (writable, WRITE), (devices, DEVICE)):
            for path in paths:
                add_rule(ruleset, path, grant & rights[0])
        syscall(RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return version


def add_rule(ruleset: int, path: Path, grant: int) -> None:
    """Grant rights to a file, or to a folder and everything beneath it."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        allowed = grant if path.is_dir() else grant & FILE_ONLY
        rule = struct.pack("=Qi", allowed, descriptor)
        syscall(ADD_RULE, ruleset, PATH_BENEATH, rule, 0)
    finally:
        os.close(descriptor)


def syscall(number: int, *arguments: object) -> int:
    """Make a system call and return its result. Raises `OSError`."""
    libc = ctypes.CDLL(None, use_errno=True)
    result = int(libc.syscall(number, *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"landlock: {os.strerror(ctypes.get_errno())}")
    return result
