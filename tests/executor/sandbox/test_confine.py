"""What runs in a worker, tried from inside: what it must not reach, and what it needs."""

import errno
import json
import os
import platform
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from executor.determinism import profile
from executor.errors import Abstained
from executor.job import Job, ModelRef
from executor.models.folders import SHIPPED
from executor.sandbox import confine, landlock, seccomp, syscalls
from executor.worker import process
from executor.worker.supervisor import WorkerStatus, WorkerSupervisor
from tests.executor.conftest import TIMEOUT

whole = pytest.mark.skipif(
    landlock.abi() < 6 or bool(seccomp.unavailable()),
    reason="this kernel has no landlock of version 6, or no filter is written for it",
)

# Runs in an interpreter of its own: enter, then try each name; the output says how each ends.
INSIDE = """
import ctypes, fcntl, json, mmap, os, platform, resource, socket, subprocess, sys, threading
from pathlib import Path
from executor.sandbox import confine as sandbox
scratch, models, key, parent = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), os.getppid()
libc = ctypes.CDLL(None, use_errno=True)
arm = platform.machine() == "aarch64"
model, pipe = os.open(models / "model", os.O_RDONLY), os.pipe()
state = sandbox.confine([models, scratch], 2**30)

def call(numbers, *arguments):
    if libc.syscall(numbers[arm], *arguments) == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

def thread():
    read = []
    started = threading.Thread(target=lambda: read.append((models / "model").read_text()))
    started.start()
    started.join()
    assert read == ["weights"]

def exhaust():
    files = [open(models / "model") for _ in range(sandbox.OPEN_FILES)]

def many():
    for number in range(100_000):
        (scratch / str(number)).touch()

def unlimit():
    resource.setrlimit(resource.RLIMIT_AS, (2**40, 2**40))

def unlimit_files():
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))

attempts = {
%s
}
ended = {}
for name, attempt in attempts.items():
    try:
        attempt()
        ended[name] = "done"
    except BaseException as error:
        ended[name] = type(error).__name__
print(json.dumps({"state": state, "ended": ended}))
"""

REFUSED = {
    # the node's key, and whatever else is its own or the user's
    "read key": "lambda: key.read_bytes()",
    "write key": "lambda: key.write_bytes(b'')",
    "replace key": "lambda: (scratch / 'input').rename(key)",
    "list the key's folder": "lambda: os.listdir(key.parent)",
    "link key": "lambda: os.link(key, scratch / 'link')",
    "chmod key": "lambda: key.chmod(0o644)",
    "chmod open file": "lambda: os.fchmod(model, 0o777)",
    "chmod by the newest call": "lambda: call((452, 452), -100, str(key).encode(), 0o644, 0)",
    "chown": "lambda: os.chown(key, 12345, 12345)",
    "touch key": "lambda: os.utime(key)",
    "touch open file": "lambda: os.utime(model)",
    "set attribute": "lambda: os.setxattr(models / 'model', 'user.x', b'x')",
    "set attribute by the newest call": "lambda: call((463, 463), -100, None, 0, None, None, 0)",
    "remove attribute": "lambda: os.removexattr(models / 'model', 'user.x')",
    "set flags": "lambda: fcntl.ioctl(model, 0x40086602, b'\\0' * 8)",
    "lock model": "lambda: fcntl.flock(model, fcntl.LOCK_SH)",
    "lock a part of it": "lambda: fcntl.lockf(model, fcntl.LOCK_SH)",
    "lease model": "lambda: fcntl.fcntl(model, 1024, fcntl.F_RDLCK)",
    "watch model": "lambda: call((294, 26), 0)",
    "read /etc": "lambda: Path('/etc/passwd').read_bytes()",
    "read home": "lambda: os.listdir('/root')",
    "read parent's memory": "lambda: open(f'/proc/{parent}/mem', 'rb')",
    "read parent's environment": "lambda: open(f'/proc/{parent}/environ', 'rb')",
    "list parent's files": "lambda: os.listdir(f'/proc/{parent}/fd')",
    "leave by /proc/self/root": "lambda: Path(f'/proc/self/root{key}').read_bytes()",
    # what others would read, or follow
    "write model": "lambda: (models / 'model').open('r+')",
    "truncate model": "lambda: os.truncate(models / 'model', 0)",
    "add to models": "lambda: (models / 'new').write_text('x')",
    "write library": "lambda: (Path(sandbox.__file__).parent / 'new.py').write_text('x')",
    "plant a link": "lambda: (scratch / 'link').symlink_to(key)",
    "plant a pipe": "lambda: os.mkfifo(scratch / 'pipe')",
    # the disk, also in its own folders
    "write": "lambda: (scratch / 'x').write_text('x')",
    "write to an input": "lambda: (scratch / 'input').open('a')",
    "make a folder": "lambda: (scratch / 'folder').mkdir()",
    "remove": "lambda: (scratch / 'input').unlink()",
    "many files": "many",
    "a file without a name": "lambda: os.open(scratch, os.O_TMPFILE | os.O_RDWR)",
    "shared memory": "lambda: open('/dev/shm/x', 'w')",
    # memory that its limit does not count, or that outlives it
    "memfd": "lambda: os.memfd_create('x')",
    "secret memory": "lambda: call((447, 447), 0)",
    "System V memory": "lambda: call((29, 194), 0, 4096, 0o1600)",
    "attach System V memory": "lambda: call((30, 196), 0, None, 0)",
    "System V semaphores": "lambda: call((64, 190), 0, 1, 0o1600)",
    "System V messages": "lambda: call((68, 186), 0, 0o1600)",
    "POSIX messages": "lambda: call((240, 180), b'x', 0o102, 0o600, None)",
    "larger pipe": "lambda: fcntl.fcntl(pipe[1], 1031, 2**20)",
    "lock memory": "lambda: call((149, 228), None, 4096)",
    # the network
    "tcp": "lambda: socket.socket()",
    "udp": "lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    "ipv6": "lambda: socket.socket(socket.AF_INET6)",
    "unix": "lambda: socket.socket(socket.AF_UNIX)",
    "unix datagrams": "lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)",
    "unix pair": "lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)",
    "netlink": "lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "connect": "lambda: socket.create_connection(('127.0.0.1', 1))",
    "connect what it has": "lambda: call((42, 203), 0, None, 0)",
    "send a datagram": "lambda: call((44, 206), 0, b'x', 1, 0, None, 0)",
    "pass descriptors": "lambda: call((46, 211), 0, None, 0)",
    "uring": "lambda: call((425, 425), 1, None)",
    # other processes
    "start": "lambda: subprocess.run(['/bin/true'])",
    "exec": "lambda: os.execv('/bin/true', ['true'])",
    "fork": "lambda: os.fork()",
    "clone a process": "lambda: call((56, 220), 17, None, None, None, None)",
    "clone into namespaces": "lambda: call((56, 220), 0x10010F00, None, None, None, None)",
    "kill parent": "lambda: os.kill(parent, 0)",
    "kill its group": "lambda: os.kill(0, 0)",
    "kill all": "lambda: os.kill(-1, 0)",
    "kill parent's thread": "lambda: call((234, 131), parent, parent, 0)",
    "queue a signal": "lambda: call((129, 138), parent, 0, None)",
    "signal by a descriptor": "lambda: fcntl.fcntl(0, 8, parent)",
    "trace parent": "lambda: call((101, 117), 16, parent, 0, 0)",
    "read parent": "lambda: call((310, 270), parent, None, 0, None, 0, 0)",
    "open parent": "lambda: os.pidfd_open(parent)",
    "limit parent": "lambda: resource.prlimit(parent, resource.RLIMIT_NOFILE)",
    "renice parent": "lambda: os.setpriority(os.PRIO_PROCESS, parent, 19)",
    "renice the user": "lambda: os.setpriority(os.PRIO_USER, os.getuid(), 19)",
    "pin parent": "lambda: os.sched_setaffinity(parent, {0})",
    "schedule parent": "lambda: os.sched_setscheduler(parent, os.SCHED_IDLE, os.sched_param(0))",
    "schedule parent's reads": "lambda: call((251, 30), 1, parent, 3 << 13)",
    "move parent's memory": "lambda: call((256, 238), parent, 8, None, None)",
    "leave its group": "lambda: os.setpgid(0, 0)",
    "leave its session": "lambda: os.setsid()",
    "hide its state": "lambda: call((157, 167), 4, 0)",
    # the kernel
    "unshare": "lambda: call((272, 97), 0x10000000)",
    "enter a namespace": "lambda: call((308, 268), 0, 0)",
    "chroot": "lambda: os.chroot(scratch)",
    "mount": "lambda: call((165, 40), None, None, None, 0, None)",
    "bpf": "lambda: call((321, 280), 0, None, 0)",
    "keys": "lambda: call((250, 219), 0, 0)",
    "faults": "lambda: call((323, 282), 1)",
    "counters": "lambda: call((298, 241), None, 0, -1, -1, 0)",
    "a second filter": "lambda: call((317, 277), 1, 0, None)",
    "a later call": "lambda: call((2000, 2000))",
    # its own bounds
    "more memory": "lambda: bytearray(2**30)",
    "more memory, shared": "lambda: mmap.mmap(-1, 2**30)",
    "more files": "exhaust",
    "raise a limit": "unlimit",
    "raise the limit of files": "unlimit_files",
}
# How an attempt ends that is not refused with EPERM or EACCES.
ENDS = {
    "more memory": "MemoryError",
    "raise a limit": "ValueError",
    "raise the limit of files": "ValueError",
    **dict.fromkeys(
        (
            "chmod by the newest call",
            "set attribute by the newest call",
            "set flags",
            "more memory, shared",
            "more files",
            "a later call",
        ),
        "OSError",
    ),
}
ALLOWED = {
    "read model": "lambda: (models / 'model').read_text()",
    "read input": "lambda: (scratch / 'input').read_text()",
    "import": "lambda: __import__('wave') and __import__('numpy')",
    "engine": "lambda: __import__('executor.engine.library', fromlist=['load']).load()",
    "thread": "thread",
    "discard": "lambda: open(os.devnull, 'w').write('x')",
    "memory": "lambda: bytearray(2**24)",
    "pipe": "lambda: os.write(pipe[1], b'x')",
    "its own limits": "lambda: resource.prlimit(os.getpid(), resource.RLIMIT_NOFILE)",
    "its own processors": "lambda: os.sched_setaffinity(0, os.sched_getaffinity(0))",
    "signal itself": "lambda: os.kill(os.getpid(), 0)",
    "name a thread": "lambda: call((157, 167), 15, b'worker')",
    "duplicate": "lambda: os.dup(0)",
}


class Ended(Exception):
    """The exit code of an interpreter that did not get to its end, and what it printed."""


def tried(tmp_path: Path, attempts: dict[str, str], prelude: str = "") -> dict[str, Any]:
    for name in ("scratch", "models", "node"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "models" / "model").write_text("weights")
    (tmp_path / "scratch" / "input").write_text("song")
    (tmp_path / "node" / "node.pem").write_text("secret")
    lines = "\n".join(f"    {name!r}: {attempt}," for name, attempt in attempts.items())
    places = [tmp_path / "scratch", tmp_path / "models", tmp_path / "node" / "node.pem"]
    ended = subprocess.run(
        [sys.executable, "-P", "-c", prelude + INSIDE % lines, *map(str, places)],
        env=profile.child_environment(tmp_path / "scratch"),
        capture_output=True,
        check=False,
        text=True,
    )
    if ended.returncode != 0:
        raise Ended(ended.returncode, ended.stderr)
    results: dict[str, Any] = json.loads(ended.stdout)
    return results


@whole
def test_sandbox_denies_everything_outside(tmp_path: Path) -> None:
    key = tmp_path / "node" / "node.pem"
    results = tried(tmp_path, REFUSED)
    wrong = {
        name: end
        for name, end in results["ended"].items()
        if end != ENDS.get(name, "PermissionError")
    }
    assert wrong == {}
    assert results["ended"].keys() == REFUSED.keys()
    assert key.read_text() == "secret"
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["model"]
    assert [path.name for path in (tmp_path / "scratch").iterdir()] == ["input"]


@whole
def test_sandbox_allows_what_computing_needs(tmp_path: Path) -> None:
    assert set(tried(tmp_path, ALLOWED)["ended"].values()) == {"done"}


# Machine code: getpid of the 32-bit calls, then return.
CALLS_OF_ANOTHER_MACHINE = {
    "x32": "lambda: call((0x40000000 + 39, 0))",
    "32 bits": (
        "lambda: (page := mmap.mmap(-1, 4096, prot=7)).write(bytes.fromhex('b814000000cd80c3')) and"
        " ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()"
    ),
}


@whole
@pytest.mark.skipif(platform.machine() != "x86_64", reason="only x86-64 has other calls")
@pytest.mark.parametrize("name", CALLS_OF_ANOTHER_MACHINE)
def test_calls_of_another_machine_end_the_process(tmp_path: Path, name: str) -> None:
    with pytest.raises(Ended) as caught:
        tried(tmp_path, {name: CALLS_OF_ANOTHER_MACHINE[name]})
    assert caught.value.args[0] == -signal.SIGSYS


@whole
def test_sandbox_reports_every_part_in_force(ready: WorkerStatus) -> None:
    sandbox = dict(ready.sandbox)
    assert sandbox.pop("memory").endswith("MiB of addresses")
    calls = sandbox.pop("calls").split()
    assert 100 < int(calls[1]) < 200
    assert sandbox == {
        "privileges": "none, and no new ones",
        "disk": "no byte to any file",
        "files": f"landlock {landlock.abi()}: models and libraries to read, none to write",
        "network": "seccomp: no socket of any kind",
        "processes": "seccomp: no new process, no signal, priority or trace for another one",
        "metadata": "seccomp: no change of a file's mode, owner, times or attributes",
        "shared": "seccomp: no memfd, System V or POSIX objects, which would escape the limits",
    }


# What an attempt that the kernel does not know ends with: as on an older one, or under emulation.
OLD = """
from executor.sandbox import landlock, seccomp
landlock.abi = lambda: %d
def none(**_): raise OSError(22, "Invalid argument")
seccomp.restrict = none
"""


def test_missing_kernel_features_are_reported_and_the_rest_holds(tmp_path: Path) -> None:
    names = ("tcp", "more memory", "raise the limit of files")
    results = tried(tmp_path, {name: REFUSED[name] for name in names} | {"write": WRITE}, OLD % 0)
    assert results["ended"] == {
        "tcp": "done",
        "more memory": "MemoryError",
        "raise the limit of files": "ValueError",
        "write": "OSError",
    }
    state = results["state"]
    assert state["files"] == "not in force: this kernel has no landlock"
    assert state["disk"] == "no byte to any file"
    missing = {state[name] for name in ("network", "processes", "metadata", "shared", "calls")}
    assert missing == {"not in force: Invalid argument"}


# A file can be made on such a kernel, but nothing be written to it.
WRITE = "lambda: (scratch / 'x').write_text('x')"


@whole
def test_seccomp_denies_writing_without_landlock(tmp_path: Path) -> None:
    names = ("write", "write key", "chmod key", "remove", "many files", "truncate model")
    none = "from executor.sandbox import landlock; landlock.abi = lambda: 0"
    results = tried(tmp_path, {name: REFUSED[name] for name in names}, none)
    assert set(results["ended"].values()) == {"PermissionError"}
    assert results["state"]["files"] == (
        "not in force: this kernel has no landlock; seccomp: none can be opened for writing"
    )


@whole
def test_landlock_denies_tcp_and_signals_without_seccomp(tmp_path: Path) -> None:
    attempts = {name: REFUSED[name] for name in ("connect", "read key")}
    results = tried(tmp_path, attempts, OLD % 4)
    assert set(results["ended"].values()) == {"PermissionError"}
    assert results["state"]["network"] == "in part: landlock: no TCP, all else is open"
    assert results["state"]["processes"] == "not in force: Invalid argument"


def test_old_landlock_says_what_it_lets_through() -> None:
    assert landlock.describe(2) == "in part: landlock 2 lets files be truncated: Linux 6.2 does not"
    assert landlock.substitutes(6)["processes"].startswith("in part: landlock: no signal")
    assert landlock.substitutes(3) == {}


def test_cuda_lifts_only_the_address_limit(tmp_path: Path) -> None:
    """It reserves more than there is memory; what cannot be bounded is said."""
    reserve = "lambda: __import__('mmap').mmap(-1, 2**36, prot=0, flags=0x4022)"  # no memory
    attempts = {"addresses": reserve, "tcp": REFUSED["tcp"]}
    gpu = "from executor.sandbox import confine as sandbox; enter = sandbox.confine;"
    gpu += "sandbox.confine = lambda *places: enter(*places, 'cuda')"
    results = tried(tmp_path, attempts, gpu)
    assert results["ended"] == {"addresses": "done", "tcp": "PermissionError"}
    assert results["state"]["memory"].startswith("not in force: a GPU's driver reserves")
    assert tried(tmp_path / "cpu", attempts)["ended"]["addresses"] == "OSError"


@pytest.mark.parametrize("version", range(1, 10))
def test_rights_follow_the_landlock_version(version: int) -> None:
    files, tcp, beyond = landlock.handled(version)
    assert files.bit_length() == {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)
    assert bool(tcp) == (version >= 4)
    assert bool(beyond) == (version >= 6)


def test_no_filter_for_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for machine in seccomp.MACHINES:
        monkeypatch.setattr("platform.machine", lambda machine=machine: machine)
        assert seccomp.unavailable() == ""
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert "riscv64" in seccomp.unavailable()


# The filter itself, on both machines: what the kernel would decide about a call.

PID = 4321
ALLOW, EPERM, ENOSYS, EACCES = (
    seccomp.ALLOW,
    *(seccomp.REFUSE | number for number in (errno.EPERM, errno.ENOSYS, errno.EACCES)),
)


def decide(machine: str, number: int, *arguments: int, read_only: bool = False) -> int:
    """Run the filter as the kernel does, on one call."""
    architecture, _ = seccomp.MACHINES[machine]
    padded = (*arguments, *[0] * (6 - len(arguments)))
    data = struct.pack("<iIQ6Q", number, architecture, 0, *padded)
    limited = seccomp.conditions(PID, read_only=read_only, writes=False, gpu=False)
    code = seccomp.filter_code(machine, syscalls.ALLOWED, limited)
    return run_filter([*struct.iter_unpack("<HBBI", code)], data)


def run_filter(steps: list[tuple[int, ...]], data: bytes) -> int:
    place = value = 0
    while True:
        operation, if_true, if_false, operand = steps[place]
        place += 1
        if operation == seccomp.RETURN:
            return operand
        if operation == seccomp.LOAD:
            (value,) = struct.unpack_from("<I", data, operand)
        elif operation == seccomp.AND:
            value &= operand
        else:
            holds = value == operand if operation == seccomp.EQUAL else value >= operand
            place += if_true if holds else if_false


@pytest.mark.parametrize("machine", seccomp.MACHINES)
def test_only_listed_calls_are_allowed(machine: str) -> None:
    allowed = set(seccomp.numbers(machine, syscalls.ALLOWED).values())
    limited = set(seccomp.numbers(machine, syscalls.CONDITIONAL).values())
    unknown = set(seccomp.numbers(machine, syscalls.UNKNOWN).values())
    assert not allowed & limited
    assert not (allowed | limited) & unknown
    for number in range(600):
        if number in allowed:
            assert decide(machine, number) == ALLOW
        elif number not in limited:
            late = number > syscalls.LAST_OLD_CALL or number in unknown
            assert decide(machine, number) == (ENOSYS if late else EPERM)


@pytest.mark.parametrize("machine", seccomp.MACHINES)
@pytest.mark.parametrize(
    ("name", "arguments", "decision"),
    [
        ("clone", (0x3D0F00,), ALLOW),  # a thread of glibc
        ("clone", (0x7D0F00,), ALLOW),  # of musl
        ("clone", (17,), EPERM),
        ("clone", (0x3D0F00 | 0x4000_0000,), EPERM),
        ("clone", (0x4111,), EPERM),  # vfork
        ("kill", (PID, 9), ALLOW),
        ("kill", (0, 9), EPERM),
        ("kill", (2**32 - 1, 9), EPERM),
        ("kill", (1, 9), EPERM),
        ("tgkill", (PID, 5, 6), ALLOW),
        ("tgkill", (1, 1, 6), EPERM),
        ("prlimit64", (0,), ALLOW),
        ("prlimit64", (1,), EPERM),
        ("sched_setaffinity", (1,), EPERM),
        ("fcntl", (3, 1030), ALLOW),
        ("fcntl", (3, 8), EPERM),
        ("ioctl", (3, 0x5401), ALLOW),
        ("ioctl", (3, 0x5412), seccomp.REFUSE | errno.ENOTTY),  # terminal input
        ("prctl", (15,), ALLOW),
        ("prctl", (4,), EPERM),
        ("personality", (0xFFFF_FFFF,), ALLOW),
        ("personality", (0x0400000,), EPERM),
        ("openat", (0, 0, 0o2), ALLOW),  # landlock's business
        ("openat", (0, 0, 0o20200000 | 0o2), EACCES),  # O_TMPFILE
    ],
)  # fmt: skip
def test_conditions_on_arguments(
    machine: str, name: str, arguments: tuple[int, ...], decision: int
) -> None:
    number = seccomp.numbers(machine, syscalls.CONDITIONAL)[name]
    assert decide(machine, number, *arguments) == decision


@pytest.mark.parametrize("machine", seccomp.MACHINES)
@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_TRUNC])
def test_no_file_is_opened_for_writing_where_landlock_is_missing(machine: str, flags: int) -> None:
    number = seccomp.numbers(machine, syscalls.CONDITIONAL)["openat"]
    assert decide(machine, number, 0, 0, flags, read_only=True) == EACCES
    assert decide(machine, number, 0, 0, os.O_CLOEXEC, read_only=True) == ALLOW


def test_calls_of_another_architecture_are_killed() -> None:
    assert decide("x86_64", seccomp.X32 + 1) == seccomp.KILL
    x86, arm = (
        seccomp.filter_code(
            machine,
            syscalls.ALLOWED,
            seccomp.conditions(PID, read_only=False, writes=False, gpu=False),
        )
        for machine in ("x86_64", "aarch64")
    )
    for code, architecture in ((x86, 0x4000_0003), (x86, 0xC000_00B7), (arm, 0x4000_0028)):
        data = struct.pack("<iIQ6Q", 20, architecture, 0, *[0] * 6)
        assert run_filter([*struct.iter_unpack("<HBBI", code)], data) == seccomp.KILL


def test_folder_granting_follows_links(tmp_path: Path) -> None:
    key = tmp_path / "models" / "node.pem"
    assert confine.folder_granting(key, [tmp_path / "other", tmp_path]) == tmp_path
    assert confine.folder_granting(key, [tmp_path / "mod"]) is None
    (tmp_path / "link").symlink_to(tmp_path)
    assert confine.folder_granting(tmp_path / "link" / "x", [tmp_path / "models"]) is None
    assert confine.folder_granting(tmp_path / "link" / "models", [tmp_path / "models"]) is not None


# The worker itself, doing what a job tells it to, as if a model had taken it over. It skips its
# self-test, and so the seconds that imports take: the sandbox is entered before them.
TAKEN_OVER = """
import executor.worker.main as worker
from executor.worker.messages import JobDone, WorkerReady, message_text
def execute(self, running, computed):
    failure, job = "", running.message
    try:
        exec(job["args"]["code"])
    except BaseException as error:
        failure = message_text(repr(error))[:1000]
    return JobDone({"error": "no-notes"}, {"failure": failure})
def prepare(self):
    return WorkerReady({}, True, "", {})
worker.JobRunner._execute, worker.JobRunner.prepare = execute, prepare
worker.main()
"""


def failure_of(
    supervisor: WorkerSupervisor, code: str, *inputs: Path, timeout: float = TIMEOUT
) -> str:
    """Run code in the worker; return the exception that it raises, "" if none."""
    order = Job("task", "text-to-music", {"code": code}, ModelRef("x", "1", "0" * 64), inputs)
    execution = supervisor.run(order, timeout=timeout, progress=lambda _: None)
    return str(execution.trace["failure"])


@pytest.fixture(scope="module")
def compromised(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A supervisor whose worker runs code from its jobs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "ARGUMENTS", ("-P", "-c", TAKEN_OVER))
        supervisor = WorkerSupervisor(
            [], tmp_path_factory.mktemp("compromised"), memory_limit=4 * 2**30
        )
        assert supervisor.start(TIMEOUT).ok
        yield supervisor
        supervisor.close()


@whole
def test_compromised_worker_reaches_no_key_and_no_network(
    compromised: WorkerSupervisor, tmp_path: Path
) -> None:
    key = tmp_path / "node.pem"
    key.write_text("secret")
    assert failure_of(compromised, f"open({str(key)!r})").startswith("PermissionError")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        assert "PermissionError" in failure_of(
            compromised, f"import socket; socket.create_connection({address})"
        )
    assert "PermissionError" in failure_of(compromised, "import subprocess; subprocess.run(['id'])")
    assert "PermissionError" in failure_of(compromised, f"import os; os.kill({os.getpid()}, 9)")


def test_worker_environment_is_only_the_profile(
    compromised: WorkerSupervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HELIUM_KEY_PASSPHRASE", "secret")
    with pytest.raises(Abstained):
        # The next worker is started with this environment.
        failure_of(compromised, "import os; os.abort()")
    names = {*profile.NUMERIC, *profile.QUIET, *profile.INHERITED, *profile.PLACES, "PYTHONPATH"}
    variables = (
        "{line.split('=')[0] for line in open('/proc/self/environ').read().split('\\0') if line}"
    )
    assert failure_of(compromised, f"assert {variables} <= {names!r}, {variables}") == ""


def test_worker_reads_inputs_but_cannot_change_them(
    compromised: WorkerSupervisor, tmp_path: Path
) -> None:
    """Inputs are blobs of the node's store, named by their content."""
    blob = tmp_path / "blob"
    blob.write_text("sound")
    read = "assert open(job['inputs'][0]).read() == 'sound'"
    assert failure_of(compromised, read, blob) == ""
    change = f"{read}; open(job['inputs'][0], 'a').write('more')"
    assert failure_of(compromised, change, blob).startswith("PermissionError")
    assert blob.read_text() == "sound"
    assert not list(Path(compromised.scratch).glob("*-input-*"))


def test_missing_input_file_is_an_abstention(compromised: WorkerSupervisor, tmp_path: Path) -> None:
    with pytest.raises(Abstained) as caught:
        failure_of(compromised, "", tmp_path / "absent")
    assert caught.value.reason == "input-missing"
    assert failure_of(compromised, "") == ""


@pytest.mark.parametrize(
    ("code", "reason", "detail"),
    [
        ("import os; os.abort()", "worker-died", "exit code -6"),
        ("import ctypes; ctypes.string_at(0)", "worker-died", "exit code -11"),
        ("import sys, os; os._exit(0)", "worker-died", "exit code 0"),
        ("sandbox.extend_cpu_limit(1)\nwhile True: pass", "worker-died", "exit code -24"),
        ("import threading; threading.Event().wait()", "timeout", "deadline"),
    ],
)
def test_crashing_worker_costs_one_abstention(
    compromised: WorkerSupervisor, code: str, reason: str, detail: str
) -> None:
    timeout = 0.5 if reason == "timeout" else TIMEOUT
    failure_of(compromised, "")  # its start is not part of the job's time
    with pytest.raises(Abstained, match=detail) as caught:
        failure_of(
            compromised, f"from executor.sandbox import confine as sandbox\n{code}", timeout=timeout
        )
    assert caught.value.reason == reason
    assert failure_of(compromised, "") == ""


def test_exceeding_the_memory_limit_is_an_abstention(compromised: WorkerSupervisor) -> None:
    """What a library raises for want of memory, as the worker itself meets it."""
    grow = "import numpy; numpy.ones(2**30)"
    assert "MemoryError" in failure_of(compromised, grow)
    grown = f"try: {grow}\nexcept MemoryError as error: self._execute = lambda *_: 1 / 0"
    assert failure_of(compromised, grown) == ""
    with pytest.raises(Abstained, match="ZeroDivisionError") as caught:
        failure_of(compromised, "")
    assert caught.value.reason == "worker-died"
    assert failure_of(compromised, "") == ""


def test_cpu_limit_is_extended_per_job() -> None:
    """The limit counts from what was used before, so that a long life is no fault."""
    code = (
        "import resource, time;"
        "from executor.sandbox import confine as sandbox;"
        "sandbox.extend_cpu_limit(5); first = resource.getrlimit(resource.RLIMIT_CPU)[0];"
        "begin = time.process_time();\n"
        "while time.process_time() < begin + 1.1: pass\n"
        "sandbox.extend_cpu_limit(5); print(resource.getrlimit(resource.RLIMIT_CPU)[0] - first)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=SHIPPED.parent.parent, capture_output=True, check=True
    )
    assert int(ended.stdout) in (1, 2)
