"""What runs in a worker, tried from inside: what it must not reach, and what it needs."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from executor.determinism import profile
from executor.errors import Abstained
from executor.job import Job, ModelRef
from executor.models.folders import SHIPPED
from executor.sandbox import confine, landlock, seccomp
from executor.worker import process
from executor.worker.supervisor import WorkerStatus, WorkerSupervisor
from tests.executor.conftest import TIMEOUT

whole = pytest.mark.skipif(
    landlock.abi() < 6 or bool(seccomp.unavailable()),
    reason="this kernel has no landlock of version 6, or no filter is written for it",
)

# Runs in an interpreter of its own: enter, then try each name; the output says how each ends.
INSIDE = """
import ctypes, json, os, resource, socket, subprocess, sys, threading
from pathlib import Path
from executor.sandbox import confine as sandbox
scratch, models, key, parent = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), os.getppid()
libc = ctypes.CDLL(None, use_errno=True)
state = sandbox.confine([models], scratch, 2**30)

def call(number, *arguments):
    if libc.syscall(number, *arguments) == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

def thread():
    started = threading.Thread(target=(scratch / "by-thread").write_text, args=("x",))
    started.start()
    started.join()
    (scratch / "by-thread").read_text()

def overwrite():
    with (models / "model").open("r+") as file:
        file.write("x")

def grow():
    with (scratch / "large").open("wb") as file:
        file.truncate(sandbox.FILE_BYTES + 1)

def link_in():
    os.link(key, scratch / "link")

def exhaust():
    files = [open(scratch / "kept") for _ in range(sandbox.OPEN_FILES)]

def unlimit():
    resource.setrlimit(resource.RLIMIT_AS, (2**40, 2**40))

attempts = {
%s
}
ended = {}
(scratch / "kept").write_text("x")
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
    "replace key": "lambda: (scratch / 'kept').rename(key)",
    "list the key's folder": "lambda: os.listdir(key.parent)",
    "link key": "link_in",
    "read /etc": "lambda: Path('/etc/passwd').read_bytes()",
    "read home": "lambda: os.listdir('/root')",
    "read parent's memory": "lambda: open(f'/proc/{parent}/mem', 'rb')",
    "read parent's environment": "lambda: open(f'/proc/{parent}/environ', 'rb')",
    "list parent's files": "lambda: os.listdir(f'/proc/{parent}/fd')",
    "leave by /proc/self/root": "lambda: Path(f'/proc/self/root{key}').read_bytes()",
    # what others would read, or follow
    "write model": "overwrite",
    "add to models": "lambda: (models / 'new').write_text('x')",
    "plant a link": "lambda: (scratch / 'link').symlink_to(key)",
    "plant a pipe": "lambda: os.mkfifo(scratch / 'pipe')",
    "write library": "lambda: (Path(sandbox.__file__).parent / 'new.py').write_text('x')",
    # the network
    "tcp": "lambda: socket.socket()",
    "udp": "lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    "ipv6": "lambda: socket.socket(socket.AF_INET6)",
    "unix": "lambda: socket.socket(socket.AF_UNIX)",
    "netlink": "lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "connect": "lambda: socket.create_connection(('127.0.0.1', 1))",
    "uring": "lambda: call(425, 1, None)",
    "32-bit calls": "lambda: call(0x40000000 + 41, 2, 1, 0)",
    # other processes
    "start": "lambda: subprocess.run(['true'])",
    "exec": "lambda: os.execv('/bin/true', ['true'])",
    "fork": "lambda: os.fork()",
    "vfork": "lambda: call(58)",
    "kill parent": "lambda: os.kill(parent, 0)",
    "trace parent": "lambda: call(101, 16, parent, 0, 0)",
    "read parent": "lambda: call(310, parent, None, 0, None, 0, 0)",
    "open parent": "lambda: os.pidfd_open(parent)",
    "limit parent": "lambda: resource.prlimit(parent, resource.RLIMIT_NOFILE)",
    # the kernel
    "unshare": "lambda: call(272, 0x10000000)",
    "chroot": "lambda: os.chroot(scratch)",
    "mount": "lambda: call(165, None, None, None, 0, None)",
    "bpf": "lambda: call(321, 0, None, 0)",
    "chown": "lambda: os.chown(scratch / 'kept', 12345, 12345)",
    # its own bounds
    "more memory": "lambda: bytearray(2**30)",
    "larger file": "grow",
    "more files": "exhaust",
    "raise a limit": "unlimit",
}
ALLOWED = {
    "read model": "lambda: (models / 'model').read_text()",
    "write scratch": "lambda: (scratch / 'x').write_text('x')",
    "make a folder in scratch": "lambda: (scratch / 'folder').mkdir()",
    "replace in scratch": "lambda: (scratch / 'x').replace(scratch / 'y')",
    "remove in scratch": "lambda: (scratch / 'y').unlink() or (scratch / 'folder').rmdir()",
    "import": "lambda: __import__('wave') and __import__('numpy')",
    "thread": "thread",
    "discard": "lambda: Path('/dev/null').write_text('x')",
    "memory": "lambda: bytearray(2**24)",
}


def tried(tmp_path: Path, attempts: dict[str, str], prelude: str = "") -> dict[str, Any]:
    for name in ("scratch", "models", "node"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "models" / "model").write_text("weights")
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
    assert ended.returncode == 0, ended.stderr
    results: dict[str, Any] = json.loads(ended.stdout)
    return results


@whole
def test_sandbox_denies_everything_outside(tmp_path: Path) -> None:
    results = tried(tmp_path, REFUSED)
    kinds = {"more memory": {"MemoryError"}, "raise a limit": {"ValueError", "PermissionError"}}
    kinds |= {name: {"OSError"} for name in ("larger file", "more files", "link key")}
    wrong = {
        name: how
        for name, how in results["ended"].items()
        if how not in kinds.get(name, {"PermissionError"})
    }
    assert wrong == {}
    assert results["ended"].keys() == REFUSED.keys()
    assert (tmp_path / "node" / "node.pem").read_text() == "secret"
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["model"]


@whole
def test_sandbox_allows_models_and_scratch(tmp_path: Path) -> None:
    assert set(tried(tmp_path, ALLOWED)["ended"].values()) == {"done"}


@whole
def test_sandbox_reports_every_part_in_force(ready: WorkerStatus) -> None:
    assert dict(ready.sandbox) == {
        "memory": ready.sandbox["memory"],
        "privileges": "none, and no new ones",
        "files": f"landlock {landlock.abi()}",
        "network": "seccomp",
        "processes": "seccomp",
    }
    assert "MiB" in ready.sandbox["memory"]


# What an attempt that the kernel does not know ends with: as on an older one, or under emulation.
OLD = """
from executor.sandbox import landlock, seccomp
landlock.abi = lambda: %d
def none(): raise OSError(22, "Invalid argument")
seccomp.deny = none
"""


def test_missing_kernel_features_are_reported_and_the_rest_holds(tmp_path: Path) -> None:
    attempts = {"tcp": REFUSED["tcp"], "more memory": REFUSED["more memory"]}
    results = tried(tmp_path, attempts, OLD % 0)
    assert results["ended"] == {"tcp": "done", "more memory": "MemoryError"}
    assert results["state"]["files"] == "not in force: this kernel has no landlock"
    assert results["state"]["network"] == "not in force: Invalid argument"
    assert results["state"]["processes"] == "not in force: Invalid argument"


@whole
def test_landlock_denies_tcp_without_seccomp(tmp_path: Path) -> None:
    attempts = {"connect": REFUSED["connect"], "read key": REFUSED["read key"]}
    results = tried(tmp_path, attempts, OLD % 4)
    assert results["ended"] == {"connect": "PermissionError", "read key": "PermissionError"}
    assert results["state"]["network"] == "landlock: no TCP, all else is open"


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
    assert seccomp.unavailable() == ""
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert "aarch64" in seccomp.unavailable()


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
def execute(self, job):
    failure = ""
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
    change = "open(job['inputs'][0], 'a').write('more')"
    detail = failure_of(
        compromised, f"assert open(job['inputs'][0]).read() == 'sound'; {change}", blob
    )
    assert detail == ""
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
    grown = f"try: {grow}\nexcept MemoryError as error: self._execute = lambda _: 1 / 0"
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
