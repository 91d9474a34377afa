import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from executor.models.folders import SHIPPED
from executor.worker import process
from executor.worker.messages import JobOutput
from executor.worker.process import WorkerDied, WorkerProcess
from tests.executor.conftest import TIMEOUT


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[WorkerProcess]:
    started = WorkerProcess([], tmp_path, None)
    yield started
    started.dispose()


def ended(descriptor: int) -> bool:
    """Wait until the process of a pidfd has ended."""
    return bool(select.select([descriptor], [], [], TIMEOUT)[0])


def test_killed_worker_raises_worker_died(worker: WorkerProcess) -> None:
    worker.kill()
    with pytest.raises(WorkerDied, match="exit code -9"):
        worker.receive(time.monotonic() + TIMEOUT)
    assert not worker.alive()


def test_no_message_before_the_deadline_is_a_timeout(worker: WorkerProcess) -> None:
    with pytest.raises(TimeoutError):
        worker.receive(time.monotonic())
    assert worker.alive()


def test_worker_has_its_own_session(worker: WorkerProcess) -> None:
    """A terminal's Ctrl-C goes to the foreground's session: the worker is in another."""
    assert os.getsid(worker.pid) == worker.pid != os.getsid(0)


def test_worker_died_has_the_end_of_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noisy = "print('x' * 100_000 + 'the end', flush=True)"
    monkeypatch.setattr(process, "ARGUMENTS", ("-c", noisy))
    started = WorkerProcess([], tmp_path, None)
    with pytest.raises(WorkerDied) as caught:
        started.receive(time.monotonic() + TIMEOUT)
    started.dispose()
    assert str(caught.value).endswith("xthe end")
    assert len(str(caught.value)) < process.PRINTED_BYTES + 100


def died(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> str:
    """Return how a worker that runs `code` is reported."""
    monkeypatch.setattr(process, "ARGUMENTS", ("-c", code))
    started = WorkerProcess([], tmp_path, None)
    with pytest.raises(WorkerDied) as caught:
        started.receive(time.monotonic() + TIMEOUT)
    started.dispose()
    return str(caught.value)


@pytest.mark.parametrize("line", ["'x'", "'x' + chr(10)"])
def test_endless_printing_ends_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    code = f"import sys\nwhile True: sys.stdout.write({line} * 1000)"
    assert died(tmp_path, monkeypatch, code).startswith("the worker died, exit code -9")


def test_what_a_worker_prints_cannot_control_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = r"import os; os.write(1, b'\x1b[2Jtwo\nlines\xff\x00')"
    report = died(tmp_path, monkeypatch, code)
    assert report.startswith("the worker died, exit code 0: [2Jtwo lines")
    assert report.isprintable()


def test_a_flood_of_threads_ends_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit of the kernel would count those of all the user's processes."""
    threads = process.MAX_THREADS  # one too many with the main thread; more may be counted early
    code = (
        "import threading; stop = threading.Event()\n"
        f"for _ in range({threads}): threading.Thread(target=stop.wait).start()"
    )
    report = died(tmp_path, monkeypatch, code)
    assert report == f"the worker died, exit code -9: it started {threads + 1} threads"


@pytest.mark.parametrize("leader", ["ends", "stays"])
def test_no_process_of_a_worker_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leader: str
) -> None:
    """Where the kernel has no filter of system calls, a worker can start others."""
    stay = "signal.pause()" if leader == "stays" else "os._exit(0)"
    code = (
        "import os, signal, sys, struct\n"
        "child = os.fork()\n"
        "if child == 0: signal.pause()\n"
        'text = b\'{"kind":"output","size":%d}\' % child\n'
        f"os.write(int(sys.argv[1]), struct.pack('!i', len(text)) + text); {stay}"
    )
    monkeypatch.setattr(process, "ARGUMENTS", ("-c", code))
    started = WorkerProcess([], tmp_path, None)
    message = started.receive(time.monotonic() + TIMEOUT)
    assert isinstance(message, JobOutput)
    with os.fdopen(os.pidfd_open(message.size)) as child:
        if leader == "ends":
            with pytest.raises(TimeoutError):
                started.receive(time.monotonic() + 0.1)
        started.dispose()
        assert ended(child.fileno())


@pytest.mark.parametrize("state", ["idle", "computing"])
def test_worker_ends_with_its_parent(tmp_path: Path, state: str) -> None:
    """A parent that is killed, and so cannot clean up, leaves no worker."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path), state],
        stdout=subprocess.PIPE,
        cwd=SHIPPED.parent.parent,
        text=True,
    )
    assert parent.stdout is not None
    with parent, os.fdopen(os.pidfd_open(int(parent.stdout.readline()))) as worker:
        assert parent.stdout.readline() == f"{state}\n"
        assert not select.select([worker], [], [], 0)[0]
        parent.send_signal(signal.SIGKILL)
        assert ended(worker.fileno())


# The idle worker skips its self-test, and so the imports: it waits for a job either way.
PARENT = """
import sys, threading
from pathlib import Path
from executor.job import Job, ModelRef
from executor.models.folders import EMBEDDED, SHIPPED, weights_digest
from executor.worker import process
from executor.worker.messages import JobOutput
from executor.worker.supervisor import WorkerSupervisor

IDLE = '''
import executor.worker.main as worker
from executor.worker.messages import WorkerReady
worker.JobRunner.prepare = lambda _: WorkerReady({}, True, "", {})
worker.main()
'''
idle = sys.argv[2] == "idle"
if idle:
    process.ARGUMENTS = ("-P", "-c", IDLE)
supervisor = WorkerSupervisor([], Path(sys.argv[1]))
status = supervisor.start(600)
assert status.ok, status
print(supervisor.pid, flush=True)
if idle:
    print("idle", flush=True)
    threading.Event().wait()
model = ModelRef(EMBEDDED, "1", weights_digest(SHIPPED / EMBEDDED))
long = {"max_new_tokens": 2000, "num_return_sequences": 16}
args = {"model": EMBEDDED, "prompt": "x", "seed": 1, "generation_config": long}
reports = []

def progress(share):
    if not reports:
        reports.append(share)
        print("computing", flush=True)

supervisor.run(Job("t", "text-to-music", args, model), timeout=600, progress=progress)
"""
