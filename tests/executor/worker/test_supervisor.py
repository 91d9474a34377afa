import dataclasses
import errno
import hashlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from executor.errors import Abstained
from executor.job import ModelRef
from executor.tasks.numba_cache import kernels
from executor.worker import process
from executor.worker import supervisor as supervisor_module
from executor.worker.scratch import kernel_folder
from executor.worker.supervisor import WorkerStatus, WorkerSupervisor
from tests.executor.conftest import PROMPT, TIMEOUT, Run, digests, job

# Far longer than any test waits: whoever sees it finish has not stopped it.
ENDLESS = {"max_new_tokens": 2000, "num_return_sequences": 16}


def endless(
    supervisor: WorkerSupervisor,
    model: ModelRef,
    progress: Callable[[float], None],
    timeout: float,
    stop: threading.Event | None = None,
) -> None:
    args = {"prompt": PROMPT, "seed": 1, "generation_config": ENDLESS}
    supervisor.run(job(model, args, "endless"), timeout=timeout, progress=progress, stop=stop)


def once(action: Callable[[], None]) -> Callable[[float], None]:
    """A progress callback that acts on the first step that it is told of."""
    done = threading.Event()

    def progress(share: float) -> None:
        if 0 < share < 1 and not done.is_set():
            done.set()
            action()

    return progress


def test_started_worker_is_ready(ready: WorkerStatus) -> None:
    assert ready.ok, ready.reason
    assert ready.reason == ""
    assert ready.seconds > 0
    assert ready.runtime["capability"] == "AVX2"


def test_starting_again_keeps_the_worker(supervisor: WorkerSupervisor) -> None:
    status = supervisor.start(TIMEOUT)  # the tests of other files may have ended the first one
    pid = supervisor.pid
    assert supervisor.start(TIMEOUT) == status
    assert supervisor.pid == pid


def test_progress_rises_from_nothing_to_all(
    supervisor: WorkerSupervisor, embedded: ModelRef
) -> None:
    shares: list[float] = []
    config = {"max_new_tokens": 120, "num_return_sequences": 2}
    args = {"prompt": PROMPT, "seed": 1, "generation_config": config}
    began = time.monotonic()
    supervisor.run(job(embedded, args), timeout=TIMEOUT, progress=shares.append)
    seconds = time.monotonic() - began
    assert shares == sorted(shares)
    assert 0 < shares[0] < 0.1
    assert shares[-1] == 1.0
    # At most every 0.05 s, besides the first and the last.
    assert 5 < len(shares) < 20 * seconds + 3
    assert any(0.3 < share < 0.7 for share in shares)


def test_all_progress_is_passed_on(
    tmp_path: Path, embedded: ModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    say = "[say(kind='progress', share=n / 99) for n in range(100)]"
    done = "say(kind='done', outcome={'error': 'no-notes'}, trace={})"
    speak(monkeypatch, f"{say}; {done}")
    supervisor = WorkerSupervisor([], tmp_path)
    shares: list[float] = []
    args = {"prompt": PROMPT, "seed": 1}
    supervisor.run(job(embedded, args), timeout=TIMEOUT, progress=shares.append)
    supervisor.close()
    assert shares == [n / 99 for n in range(100)]


def test_deadline_includes_a_restart(embedded: ModelRef, tmp_path: Path) -> None:
    supervisor = WorkerSupervisor([], tmp_path)
    with pytest.raises(Abstained) as caught:
        endless(supervisor, embedded, lambda _: None, 0.2)
    supervisor.close()
    assert caught.value.reason == "timeout"


def test_a_stop_that_no_run_has_changes_nothing(supervisor: WorkerSupervisor, run: Run) -> None:
    run(again=True)
    pid = supervisor.pid
    supervisor.stop(threading.Event())
    assert supervisor.pid == pid
    run(again=True)


def test_a_stopped_job_leaves_the_worker_warm_and_the_next_bytes_equal(
    supervisor: WorkerSupervisor, embedded: ModelRef, run: Run
) -> None:
    expected = digests(run(again=True))
    pid, stop = supervisor.pid, threading.Event()
    stopper = threading.Thread(target=supervisor.stop, args=(stop,))
    with pytest.raises(Abstained, match="the job was stopped") as caught:
        endless(supervisor, embedded, once(stopper.start), TIMEOUT, stop)
    stopper.join()
    assert caught.value.reason == "timeout"
    assert supervisor.pid == pid
    assert digests(run(again=True)) == expected


def test_a_job_past_its_deadline_leaves_the_worker_warm_and_the_next_bytes_equal(
    supervisor: WorkerSupervisor, embedded: ModelRef, run: Run
) -> None:
    expected = digests(run(again=True))
    pid = supervisor.pid
    with pytest.raises(Abstained, match="the job ran past its deadline") as caught:
        endless(supervisor, embedded, lambda _: None, 0.3)
    assert caught.value.reason == "timeout"
    assert supervisor.pid == pid
    assert digests(run(again=True)) == expected


def test_a_stop_before_the_run_prevents_it(
    supervisor: WorkerSupervisor, embedded: ModelRef
) -> None:
    supervisor.start(TIMEOUT)
    pid, stop, shares = supervisor.pid, threading.Event(), list[float]()
    supervisor.stop(stop)
    with pytest.raises(Abstained, match="the job was stopped"):
        endless(supervisor, embedded, shares.append, TIMEOUT, stop)
    assert shares == []
    assert supervisor.pid == pid


def test_one_job_at_a_time(supervisor: WorkerSupervisor, embedded: ModelRef, run: Run) -> None:
    expected = digests(run(again=True))
    reasons = []

    def second() -> None:
        with pytest.raises(Abstained) as caught:
            run(again=True)
        reasons.append(caught.value.reason)

    config = {"max_new_tokens": 40}
    args = {"prompt": PROMPT, "seed": 1, "generation_config": config}
    first = supervisor.run(job(embedded, args), timeout=TIMEOUT, progress=once(second))
    assert reasons == ["busy"]
    assert digests(first) == expected


def test_outputs_of_an_abandoned_job_are_deleted(
    tmp_path: Path, embedded: ModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that dies after it sent a part of its outputs."""
    speak(monkeypatch, f"{CONTENT}; sys.exit(3)")
    (tmp_path / "other-0.f32").touch()
    with pytest.raises(Abstained, match="exit code 3"):
        endless(WorkerSupervisor([], tmp_path), embedded, lambda _: None, TIMEOUT)
    assert [path.name for path in files_in(tmp_path)] == ["other-0.f32"]


def test_an_interrupt_does_not_reach_the_worker(
    supervisor: WorkerSupervisor, embedded: ModelRef, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    expected = digests(run(again=True))
    pid = supervisor.pid
    assert pid is not None
    config = {"max_new_tokens": 40}
    args = {"prompt": PROMPT, "seed": 1, "generation_config": config}
    interrupt = once(lambda: os.kill(pid, signal.SIGINT))
    execution = supervisor.run(job(embedded, args), timeout=TIMEOUT, progress=interrupt)
    assert digests(execution) == expected
    assert supervisor.pid == pid
    assert capfd.readouterr() == ("", "")


def test_a_worker_without_memory_is_not_ready(tmp_path: Path) -> None:
    supervisor = WorkerSupervisor([], tmp_path, memory_limit=150 * 2**20)
    ready = supervisor.start(TIMEOUT)
    supervisor.close()
    assert not ready.ok
    assert ready.runtime == {}
    assert "the worker died" in ready.reason


def test_a_worker_that_is_late_is_not_ready(tmp_path: Path) -> None:
    supervisor = WorkerSupervisor([], tmp_path)
    ready = supervisor.start(0.05)
    assert not ready.ok
    assert ready.reason == "the worker was not ready within 0.05 s"
    assert supervisor.pid is None
    supervisor.close()


# A worker that does not compute: it speaks the supervisor's protocol and starts in a moment.
FAKE = """
import json, os, sys, threading
from multiprocessing.connection import Connection

connection = Connection(int(sys.argv[1]))
config = connection.recv_bytes()

def say(**message):
    connection.send_bytes(json.dumps(message).encode())

def ready(ok=True, reason=""):
    say(kind="ready", runtime={"device": "fake"}, ok=ok, reason=reason, sandbox={})

def work(job):
    say(kind="progress", share=0.5)
    if json.loads(job)["args"]["generation_config"]["max_new_tokens"] == 2000:
        threading.Event().wait()
    say(kind="done", outcome={"error": "no-notes"}, trace={})
"""


def speak(monkeypatch: pytest.MonkeyPatch, answer: str, ready: str = "ready()") -> None:
    """Let new workers be fake ones that run `answer` for each job."""
    loop = f"{FAKE}\n{ready}\nwhile job := connection.recv_bytes():\n    {answer}"
    monkeypatch.setattr(process, "ARGUMENTS", ("-c", loop))


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkerSupervisor]:
    """A started fake worker that never ends an endless job, and fails any other."""
    speak(monkeypatch, "work(job)")
    # None of these workers stops a job when it is told to.
    monkeypatch.setattr(supervisor_module, "STOP_SECONDS", 0.05)
    supervisor = WorkerSupervisor([], tmp_path)
    assert supervisor.start(TIMEOUT).ok
    yield supervisor
    supervisor.close()


def brief(supervisor: WorkerSupervisor, model: ModelRef) -> None:
    """A job that a fake worker ends."""
    args = {"prompt": PROMPT, "seed": 1, "generation_config": {"max_new_tokens": 40}}
    execution = supervisor.run(job(model, args), timeout=TIMEOUT, progress=lambda _: None)
    assert execution.outcome == {"error": "no-notes"}


def test_killed_worker_is_an_abstention_and_is_restarted(
    fake: WorkerSupervisor, embedded: ModelRef
) -> None:
    pid = fake.pid
    assert pid is not None
    with pytest.raises(Abstained, match="exit code -9") as caught:
        endless(fake, embedded, once(lambda: os.kill(pid, signal.SIGKILL)), TIMEOUT)
    assert caught.value.reason == "worker-died"
    assert fake.pid is None
    brief(fake, embedded)
    assert fake.pid not in (None, pid)


def test_a_worker_that_died_between_jobs_is_replaced(
    fake: WorkerSupervisor, embedded: ModelRef
) -> None:
    brief(fake, embedded)
    pid = fake.pid
    assert pid is not None
    descriptor = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PIDFD, descriptor, os.WEXITED | os.WNOWAIT)
    os.close(descriptor)
    brief(fake, embedded)
    assert fake.pid not in (None, pid)


def test_a_worker_that_does_not_stop_is_killed_after_its_deadline(
    fake: WorkerSupervisor, embedded: ModelRef
) -> None:
    with pytest.raises(Abstained, match="deadline") as caught:
        endless(fake, embedded, lambda _: None, 0.3)
    assert caught.value.reason == "timeout"
    assert fake.pid is None
    brief(fake, embedded)


def test_a_worker_that_does_not_stop_is_killed(fake: WorkerSupervisor, embedded: ModelRef) -> None:
    stop = threading.Event()
    stopper = threading.Thread(target=fake.stop, args=(stop,))
    # The thread that stops it, or the one that runs it, is the first to see that its time is over.
    with pytest.raises(Abstained, match=r"exit code -9|the job was stopped") as caught:
        endless(fake, embedded, once(stopper.start), TIMEOUT, stop)
    stopper.join()
    assert caught.value.reason == "timeout"
    assert fake.pid is None
    brief(fake, embedded)


def test_a_stop_during_the_start_of_a_worker_prevents_the_job_and_keeps_the_worker(
    tmp_path: Path, embedded: ModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    speak(monkeypatch, "work(job)")
    supervisor, stop = WorkerSupervisor([], tmp_path), threading.Event()
    spawn = supervisor._spawn

    def spawn_and_stop() -> process.WorkerProcess:
        worker = spawn()
        supervisor.stop(stop)
        return worker

    monkeypatch.setattr(supervisor, "_spawn", spawn_and_stop)
    with pytest.raises(Abstained, match="the job was stopped"):
        endless(supervisor, embedded, lambda _: None, TIMEOUT, stop)
    assert supervisor.pid is not None
    supervisor.close()


def test_exception_in_progress_callback_ends_the_job(
    fake: WorkerSupervisor, embedded: ModelRef
) -> None:
    def broken(share: float) -> None:
        raise LookupError(share)

    with pytest.raises(LookupError):
        endless(fake, embedded, broken, TIMEOUT)
    assert fake.pid is None
    brief(fake, embedded)


def test_a_closed_supervisor_abstains_and_leaves_no_process(
    fake: WorkerSupervisor, embedded: ModelRef
) -> None:
    caught: list[Abstained] = []

    def work() -> None:
        try:
            endless(fake, embedded, once(closing.set), TIMEOUT)
        except Abstained as abstained:
            caught.append(abstained)

    closing = threading.Event()
    thread = threading.Thread(target=work)
    thread.start()
    assert closing.wait(TIMEOUT)
    fake.close()
    thread.join(TIMEOUT)
    assert [abstained.reason for abstained in caught] == ["worker-died"]
    assert fake.pid is None
    with pytest.raises(Abstained):
        endless(fake, embedded, lambda _: None, TIMEOUT)
    assert fake.pid is None
    assert not fake.start(TIMEOUT).ok


def test_worker_is_replaced_after_out_of_memory(
    tmp_path: Path, embedded: ModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    speak(monkeypatch, "say(kind='abstained', reason='out-of-memory', detail='too little')")
    supervisor = WorkerSupervisor([], tmp_path)
    with pytest.raises(Abstained, match="too little") as caught:
        endless(supervisor, embedded, lambda _: None, TIMEOUT)
    assert caught.value.reason == "out-of-memory"
    assert supervisor.pid is None


def test_worker_stays_after_other_abstentions(
    tmp_path: Path, embedded: ModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    speak(monkeypatch, "say(kind='abstained', reason='model-missing', detail='')")
    supervisor = WorkerSupervisor([], tmp_path)
    with pytest.raises(Abstained) as caught:
        endless(supervisor, embedded, lambda _: None, TIMEOUT)
    assert caught.value.reason == "model-missing"
    assert supervisor.pid is not None
    supervisor.close()


SHA256 = hashlib.sha256(b"abc" * 22).hexdigest()
# The outcome of one output, 66 bytes that pass for a MIDI file; CONTENT sends them.
DONE = (
    "say(kind='done', trace={}, outcome={'result': {'outputs': "
    f"[{{'media': 'audio/midi', 'sha256': '{SHA256}', 'size': 66, 'notes': 1,"
    f" 'chunks': ['{SHA256}']}}]}}}})"
)
CONTENT = "say(kind='output', size=66); os.write(connection.fileno(), b'abc' * 22)"
FAILED = "say(kind='done', outcome={'error': 'no-notes'}, trace={})"


@pytest.mark.parametrize(
    "answer",
    [
        "say(kind='else')",
        "ready()",
        "say(kind='progress', share=2)",
        "say(kind='done', outcome={'result': 1}, trace={})",
        "connection.send_bytes(b'{')",
        "connection.send_bytes(b'17')",
        r"connection.send_bytes(b'\xff')",
        "connection.send_bytes(b'[' * 100_000)",
        "connection.send_bytes(b' ' * 5_000_000)",
        # Frames: of no bytes, of a negative number, of 2 GiB, and one that ends too early.
        "os.write(connection.fileno(), bytes(4))",
        r"os.write(connection.fileno(), b'\xff' * 12)",
        r"os.write(connection.fileno(), b'\x7f' * 8)",
        r"os.write(connection.fileno(), b'\0\0\0\x09{}'); sys.exit(0)",
        r"os.write(connection.fileno(), b'\0\0'); sys.exit(0)",
        "[say(kind='progress', share=0.5) for _ in range(201)]",
        "[say(kind='progress', share=0.5, pad='x' * 1000) for _ in range(201)]",
        'connection.send_bytes(b\' \' * 300 + b\'{"kind": "progress", "share": 0}\')',
        # Outputs: missing, other bytes, a part, too many, too large, of another size.
        DONE,
        f"{CONTENT.replace('abc', 'abd')}; {DONE}",
        "say(kind='output', size=66); os.write(connection.fileno(), b'abc'); sys.exit(0)",
        f"{CONTENT}; {CONTENT}; {DONE}",
        f"[say(kind='output', size=0) for _ in range(33)]; {FAILED}",
        "say(kind='output', size=2**29 + 1)",
        "say(kind='output', size=-1)",
        f"{CONTENT}; say(kind='output', size=2**29)",
        f"say(kind='output', size=65); os.write(connection.fileno(), b'abc' * 22); {DONE}",
    ],
)
def test_a_worker_that_breaks_the_protocol_is_killed(
    tmp_path: Path, embedded: ModelRef, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    speak(monkeypatch, answer)
    supervisor = WorkerSupervisor([], tmp_path)
    with pytest.raises(Abstained) as caught:
        endless(supervisor, embedded, lambda _: None, TIMEOUT)
    assert caught.value.reason == "worker-died"
    assert supervisor.pid is None
    assert files_in(tmp_path) == []


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if not path.is_dir()]


def test_outputs_are_the_bytes_that_the_worker_sent(
    tmp_path: Path, embedded: ModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    speak(monkeypatch, f"{CONTENT}; {DONE}")
    supervisor = WorkerSupervisor([], tmp_path)
    execution = supervisor.run(
        job(embedded, {"prompt": PROMPT}), timeout=TIMEOUT, progress=lambda _: None
    )
    supervisor.close()
    assert files_in(tmp_path) == list(execution.files)
    assert execution.files[0].read_bytes() == b"abc" * 22
    assert execution.files[0].stat().st_mode & 0o777 == 0o600


TOKENS = bytes((1, 0, 0, 0)) * 2
TOKENS_HASH = hashlib.sha256(TOKENS).hexdigest()
WAVEFORM_HASH = hashlib.sha256(bytes(8)).hexdigest()
SOUND = {
    "media": "audio/f32",
    "sampling_rate": 8000,
    "frames": 2,
    "channels": 1,
    "sha256": WAVEFORM_HASH,
    "size": 8,
    "chunks": [WAVEFORM_HASH],
    "tokens": {"sha256": TOKENS_HASH, "size": 8},
}
PROVEN = {"result": {"outputs": [SOUND, SOUND]}, "work": "ab" * 32}
SEND_SOUND = "say(kind='output', size=8); os.write(connection.fileno(), bytes(8))"
SEND_TOKENS = f"say(kind='output', size=8); os.write(connection.fileno(), {TOKENS!r})"
SEND_PROVEN = f"say(kind='done', outcome={PROVEN!r}, trace={{}})"


def test_tokens_follow_their_output(
    tmp_path: Path, embedded: ModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    speak(monkeypatch, f"{'; '.join([SEND_SOUND, SEND_TOKENS] * 2)}; {SEND_PROVEN}")
    supervisor = WorkerSupervisor([], tmp_path)
    execution = supervisor.run(
        job(embedded, {"prompt": PROMPT}), timeout=TIMEOUT, progress=lambda _: None
    )
    supervisor.close()
    assert execution.outcome == PROVEN
    assert [path.suffix for path in execution.files] == [".f32", ".tokens"] * 2
    assert [path.read_bytes() for path in execution.files] == [bytes(8), TOKENS] * 2


@pytest.mark.parametrize(
    "sent", [[SEND_SOUND] * 4, [SEND_SOUND, SEND_SOUND, SEND_TOKENS, SEND_TOKENS], [SEND_SOUND] * 2]
)
def test_a_worker_that_sends_other_tokens_is_killed(
    sent: list[str], tmp_path: Path, embedded: ModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    speak(monkeypatch, f"{'; '.join(sent)}; {SEND_PROVEN}")
    supervisor = WorkerSupervisor([], tmp_path)
    with pytest.raises(Abstained, match="not those of its manifest"):
        supervisor.run(job(embedded, {"prompt": PROMPT}), timeout=TIMEOUT, progress=lambda _: None)
    supervisor.close()
    assert files_in(tmp_path) == []


def test_outputs_of_a_failed_job_are_removed(
    tmp_path: Path, embedded: ModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    speak(monkeypatch, f"{CONTENT}; {FAILED}")
    supervisor = WorkerSupervisor([], tmp_path)
    brief(supervisor, embedded)
    supervisor.close()
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_or_quota_is_an_abstention_of_its_own(
    number: int, tmp_path: Path, embedded: ModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> str:
        raise OSError(number, os.strerror(number))

    speak(monkeypatch, f"{CONTENT}; {DONE}")
    supervisor = WorkerSupervisor([], tmp_path)
    monkeypatch.setattr(process.WorkerProcess, "receive_output", full)
    with pytest.raises(Abstained) as caught:
        endless(supervisor, embedded, lambda _: None, TIMEOUT)
    assert caught.value.reason == "no-space"
    assert supervisor.pid is None


@pytest.mark.parametrize("late", [FAILED, CONTENT, "os.write(connection.fileno(), b'x')"])
def test_a_message_after_the_jobs_end_answers_no_later_job(
    tmp_path: Path, embedded: ModelRef, monkeypatch: pytest.MonkeyPatch, late: str
) -> None:
    """The worker is replaced. Its message would be taken for the next job's."""
    speak(monkeypatch, f"{FAILED}; {late}; open('late', 'w').close()")
    supervisor = WorkerSupervisor([], tmp_path)
    brief(supervisor, embedded)
    pid = supervisor.pid
    while not (tmp_path / "home" / "late").exists():
        assert supervisor.pid == pid
    brief(supervisor, embedded)
    assert supervisor.pid not in (None, pid)
    supervisor.close()


def test_a_worker_that_stops_within_a_message_meets_the_deadline(
    tmp_path: Path, embedded: ModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    speak(monkeypatch, r"os.write(connection.fileno(), b'\0\0\0\x09{}')")
    supervisor = WorkerSupervisor([], tmp_path)
    assert supervisor.start(TIMEOUT).ok
    with pytest.raises(Abstained, match="deadline") as caught:
        endless(supervisor, embedded, lambda _: None, 0.3)
    assert caught.value.reason == "timeout"
    assert supervisor.pid is None


@pytest.mark.parametrize("message", ["say(kind='progress', share=0)", "say(kind='ready')", "1 / 0"])
def test_a_first_message_that_is_not_ready_fails_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    speak(monkeypatch, "pass", ready=message)
    supervisor = WorkerSupervisor([], tmp_path)
    status = supervisor.start(TIMEOUT)
    assert not status.ok
    assert status.runtime == {}
    assert supervisor.pid is None


def test_a_failed_self_test_refuses_to_serve(
    tmp_path: Path, embedded: ModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    speak(monkeypatch, "sys.exit(4)", ready="ready(False, 'warm differs from cold')")
    supervisor = WorkerSupervisor([], tmp_path)
    ready = supervisor.start(TIMEOUT)
    assert (ready.ok, ready.reason) == (False, "warm differs from cold")
    assert ready.runtime == {"device": "fake"}
    assert supervisor.pid is None
    with pytest.raises(Abstained, match="warm differs from cold") as caught:
        endless(supervisor, embedded, lambda _: None, TIMEOUT)
    assert caught.value.reason == "worker-died"


# Kernels of pop2piano, which a process of its own compiles


def cover(supervisor: WorkerSupervisor, model: ModelRef, *songs: Path) -> None:
    order = dataclasses.replace(job(model, {"prompt": PROMPT}), kind="pop2piano", inputs=songs)
    supervisor.run(order, timeout=TIMEOUT, progress=lambda _: None)


def test_kernels_are_compiled_once_by_a_process_that_runs_no_job(
    tmp_path: Path, embedded: ModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies there before may be a taken-over worker's: it is not read."""
    compiling = "open('log', 'a').write(f'{json.loads(config)[\"compiles\"]} ')"
    speak(monkeypatch, FAILED, ready=f"{compiling}; ready()")
    folder = kernel_folder(tmp_path)
    folder.mkdir(parents=True)
    (folder / "kernel.nbc").write_text("planted")
    supervisor, song = WorkerSupervisor([], tmp_path), tmp_path / "song"
    song.touch()
    cover(supervisor, embedded, song)
    cover(supervisor, embedded, song)
    supervisor.close()
    assert (tmp_path / "home" / "log").read_text() == "True False "
    assert kernels.compiled(folder)
    assert not (folder / "kernel.nbc").exists()


def test_no_kernels_are_compiled_for_a_job_that_only_loads_its_model(
    tmp_path: Path, embedded: ModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    speak(monkeypatch, FAILED, ready="assert not json.loads(config)['compiles']; ready()")
    supervisor = WorkerSupervisor([], tmp_path)
    cover(supervisor, embedded)
    supervisor.close()
    assert not kernels.compiled(kernel_folder(tmp_path))


def test_kernels_that_cannot_be_compiled_are_an_abstention(
    tmp_path: Path, embedded: ModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    speak(monkeypatch, FAILED, ready="ready(False, 'no numba')")
    supervisor = WorkerSupervisor([], tmp_path)
    song = tmp_path / "song"
    song.touch()
    with pytest.raises(Abstained, match="kernels") as caught:
        cover(supervisor, embedded, song)
    assert caught.value.reason == "worker-died"
    assert not kernels.compiled(kernel_folder(tmp_path))
    assert supervisor.pid is None
